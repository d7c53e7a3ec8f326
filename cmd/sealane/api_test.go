// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sealane/sealane/api/v1alpha1"
	"github.com/sealane/sealane/cmd/sealane/internal/cli"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/keymgr/keytest"
)

// fakeAPI is an API server that answers GET requests from what it was given.
type fakeAPI struct {
	answers map[string]http.HandlerFunc // by path
	server  *httptest.Server
}

func newAPI(t *testing.T) *fakeAPI {
	t.Helper()
	api := &fakeAPI{answers: map[string]http.HandlerFunc{}}
	api.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if answer := api.answers[r.URL.Path]; answer != nil && r.Method == http.MethodGet {
			answer(w, r)
			return
		}
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
	}))
	t.Cleanup(api.server.Close)
	return api
}

// serve answers a path with an object in JSON.
func (api *fakeAPI) serve(t *testing.T, path string, object any) {
	t.Helper()
	raw, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	api.answers[path] = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(raw) }
}

// kubeconfig makes a file that leads to the fake.
func (api *fakeAPI) kubeconfig(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": {}}],
		"clusters": [{"name": "k", "cluster": {"server": %q}}], "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}]}`, api.server.URL)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sealane runs the program against the fake and returns what it printed.
func (api *fakeAPI) sealane(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), cli.Terminal{Out: &out}, append([]string{"sealane", "--kubeconfig", api.kubeconfig(t)}, args...))
	return out.String(), err
}

const pods = "/api/v1/namespaces/sealane-system/pods"

func agentPath(node string) string { return pods + "/http:agent-" + node + ":9754/proxy/status" }

// cluster serves nodes whose agents report them well and connected.
func (api *fakeAPI) cluster(t *testing.T, names ...string) map[string]status.Node {
	t.Helper()
	nodes := corev1.NodeList{TypeMeta: metav1.TypeMeta{Kind: "NodeList", APIVersion: "v1"}}
	agents := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}}
	reports := map[string]status.Node{}
	for _, name := range names {
		nodes.Items = append(nodes.Items, corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name)}})
		agents.Items = append(agents.Items, agentPod(name, "agent-"+name))
		report := sampleReport(t)
		report.Name, report.Key.PublicKey, report.Peers = name, "key-"+name, nil
		for _, peer := range names {
			if peer != name {
				report.Peers = append(report.Peers, status.Peer{Name: peer, State: status.Connected, Generation: report.Key.Generation, PublicKey: "key-" + peer})
			}
		}
		reports[name] = report
		api.serve(t, agentPath(name), report)
	}
	api.serve(t, "/api/v1/nodes", nodes)
	api.serve(t, pods, agents)
	return reports
}

func agentPod(node, name string) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "sealane-system", Name: name},
		Spec:       corev1.PodSpec{NodeName: node},
		Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
}

// sampleReport is a good report of a node.
func sampleReport(t *testing.T) status.Node {
	t.Helper()
	raw, err := os.ReadFile("../../daemonset/status/testdata/node.json")
	if err != nil {
		t.Fatal(err)
	}
	var n status.Node
	if err := json.Unmarshal(raw, &n); err != nil {
		t.Fatal(err)
	}
	n.Encapsulation.Plaintext, n.Refused, n.Drops, n.LastLeak = false, nil, nil, nil
	n.Revocations.Revoked, n.BundleRefused, n.RefusedAddresses = "", "", nil
	return n
}

// published serves what a node of a test cluster has published.
func (api *fakeAPI) published(t *testing.T, c *keytest.Cluster, n *keytest.Node) {
	t.Helper()
	signed := n.Sign()
	node := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Live.ID.Name, UID: types.UID(n.Live.ID.UID)}}
	for _, p := range n.Live.PodCIDRs {
		node.Spec.PodCIDRs = append(node.Spec.PodCIDRs, p.String())
	}
	for _, a := range n.Live.Addresses {
		node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	for path, object := range map[string]any{
		"/api/v1/nodes/" + node.Name: node,
		"/api/v1/namespaces/kube-system": corev1.Namespace{
			ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: keytest.TrustDomain},
		},
		"/api/v1/namespaces/sealane-system/configmaps/sealane-trust": corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: "sealane-trust"}, Data: map[string]string{"bundle.pem": string(c.Authority.Bundle())},
		},
		"/apis/sealane.io/v1alpha1/nodekeys/" + node.Name: v1alpha1.NodeKey{
			TypeMeta:   metav1.TypeMeta{Kind: "NodeKey", APIVersion: "sealane.io/v1alpha1"},
			ObjectMeta: metav1.ObjectMeta{Name: node.Name},
			Spec:       v1alpha1.NodeKeySpec{Payload: signed.Payload, Signature: signed.Signature, CertificateChain: signed.Chain},
		},
	} {
		api.serve(t, path, object)
	}
}
