// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/cmd/sealane/internal/cli"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/ca/memorystore"
	"github.com/sealane/sealane/keymgr/keytest"
)

func wantLines(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("the output lacks %q:\n%s", w, text)
		}
	}
}

func TestStatusOfAGoodCluster(t *testing.T) {
	api := newAPI(t)
	api.cluster(t, "n1", "n2", "n3")
	out, err := api.sealane(t, "status")
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, out, "encrypted: 3 of 3 nodes ready, 6 of 6 lanes up", "key-n1", "key-n3")

	out, err = api.sealane(t, "status", "--node", "n2")
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, out, "encrypted: 1 of 1 nodes ready, 2 of 2 lanes up", "node           n2")
}

func TestStatusAsJSON(t *testing.T) {
	api := newAPI(t)
	reports := api.cluster(t, "n1", "n2")
	bad := reports["n2"]
	bad.Encapsulation.Plaintext = true
	api.serve(t, agentPath("n2"), bad)
	out, err := api.sealane(t, "status", "-o", "json")
	if !errors.Is(err, cli.ErrBad) {
		t.Errorf("error %v, want cli.ErrBad", err)
	}
	var got status.Report
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if got.Verdict.State != status.NotEncrypted || len(got.Nodes) != 2 || got.Nodes[1].Name != "n2" {
		t.Errorf("report %+v", got)
	}
}

// TestStatusOfABadCluster has a node for each way not to answer.
func TestStatusOfABadCluster(t *testing.T) {
	api := newAPI(t)
	api.cluster(t, "good", "hangs", "lies", "raves", "refuses", "gone")
	agents := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}}
	for _, node := range []string{"good", "hangs", "lies", "raves", "refuses"} {
		agents.Items = append(agents.Items, agentPod(node, "agent-"+node))
	}
	api.serve(t, pods, agents)
	api.answers[agentPath("hangs")] = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	api.serve(t, agentPath("lies"), status.Node{Name: "good"})
	api.serve(t, agentPath("raves"), []string{"no", "report"})
	api.answers[agentPath("refuses")] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }
	out, err := api.sealane(t, "status", "--timeout", "300ms")
	if !errors.Is(err, cli.ErrBad) {
		t.Errorf("error %v, want cli.ErrBad", err)
	}
	wantLines(t, out, "DEGRADED: 1 of 6 nodes ready, 5 of 30 lanes up\n",
		"hangs: no report: no answer from pod agent-hangs within 300ms\n",
		"lies: no report: answered in the name of good\n",
		"raves: no report: read answer of pod agent-raves: ",
		"refuses: no report: get /status from pod sealane-system/agent-refuses: ",
		"gone: no report: no agent pod on the node\n")
}

func TestUsageErrors(t *testing.T) {
	api := newAPI(t)
	api.cluster(t, "n1", "n2")
	for want, args := range map[string][]string{
		"--node=n9: no such node; there are n1, n2": {"status", "--node", "n9"},
		"--output=yaml: want text or json":          {"status", "-o", "yaml"},
		"unknown command":                           {"stats"},
		"unknown flag":                              {"status", "--nodes"},
		"read node n9: not found":                   {"certificate", "n9"},
		"accepts 1 arg(s)":                          {"certificate"},
		"bad configuration":                         {"status", "--context", "none"},
		"list nodes":                                {"status", "--kubeconfig", deadKubeconfig(t)},
	} {
		if _, err := api.sealane(t, args...); err == nil || errors.Is(err, cli.ErrBad) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, want %q", args, err, want)
		}
	}
}

func TestBadRevokeOptions(t *testing.T) {
	for want, args := range map[string][]string{
		"--reason=stolen: want one of unspecified, keyCompromise": {"revoke", "node", "n3", "--reason=stolen"},
		"--message has 300 bytes: shorten it to 256":              {"revoke", "node", "n3", "--message=" + strings.Repeat("x", 300)},
		"--wait=-1s: want 0 or more":                              {"revoke", "node", "n3", "--wait=-1s"},
		"accepts 1 arg(s), received 0":                            {"revoke", "node"},
		"unknown command":                                         {"revoke", "pod", "x"},
	} {
		err := run(t.Context(), cli.Terminal{Out: &bytes.Buffer{}}, append([]string{"sealane"}, args...))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}

// deadKubeconfig leads to a server that has gone away.
func deadKubeconfig(t *testing.T) string {
	t.Helper()
	api := newAPI(t)
	api.server.Close()
	return api.kubeconfig(t)
}

func TestCertificate(t *testing.T) {
	clock := keytest.NewClock()
	clock.Add(time.Since(clock.Now())) // the program goes by the real time
	c := keytest.NewClusterWith(t, clock, ca.Config{Store: memorystore.New(), Clock: clock.Now})
	n := c.Node("n1", "10.244.1.0/24")
	api := newAPI(t)
	api.published(t, c, n)
	out, err := api.sealane(t, "certificate", "n1")
	if err != nil {
		t.Errorf("error %v in\n%s", err, out)
	}
	wantLines(t, out, "verified: key ", "spiffe://"+keytest.TrustDomain+"/node/n1/"+n.Live.ID.UID, "10.244.1.0/24")
	out, err = api.sealane(t, "certificate", "n1", "-o", "pem")
	if err != nil || strings.Count(out, "-----BEGIN CERTIFICATE-----") != 2 {
		t.Errorf("error %v, output\n%s", err, out)
	}

	foreign := keytest.NewCluster(t)
	api.published(t, foreign, n)
	out, err = api.sealane(t, "certificate", "n1")
	if !errors.Is(err, cli.ErrBad) {
		t.Errorf("with a foreign bundle: error %v, want cli.ErrBad", err)
	}
	wantLines(t, out, "NOT VERIFIED (chain): ")
	if _, err = api.sealane(t, "certificate", "n1", "-o", "pem"); err == nil || !strings.Contains(err.Error(), "untrusted certificate chain") {
		t.Errorf("with a foreign bundle, in PEM: error %v", err)
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]string{"/usr/bin/sealane": "sealane status", "kubectl-sealane": "kubectl sealane status"} {
		var out strings.Builder
		if err := run(t.Context(), cli.Terminal{Out: &out}, []string{name, "status", "--help"}); err != nil {
			t.Fatal(err)
		}
		wantLines(t, out.String(), want+" [flags]")
	}
	var out strings.Builder
	if err := run(t.Context(), cli.Terminal{Out: &out}, []string{"sealane", "version"}); err != nil || out.String() != version+"\n" {
		t.Errorf("version %q, error %v", out.String(), err)
	}
}
