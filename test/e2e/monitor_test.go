// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealane/sealane/daemonset/observe"
)

// monitored is a running sealane monitor -o json, and what it has shown.
type monitored struct {
	records chan observe.Record
	said    *bufio.Scanner
	kill    context.CancelFunc
}

func monitor(t testing.TB, args ...string) monitored {
	t.Helper()
	config, err := lab(t.Context(), "", "kubeconfig")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := lab(t.Context(), "", "pid", "wire")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{
		"--net=/proc/" + strings.TrimSpace(pid) + "/ns/net", tool(t), "--kubeconfig", strings.TrimSpace(config), "monitor", "-o", "json",
	}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() }) // it is killed, which is an error
	m := monitored{records: make(chan observe.Record, 1000), said: bufio.NewScanner(said), kill: cancel}
	for range nodes(t) {
		if !m.said.Scan() || !strings.HasPrefix(m.said.Text(), "watching node ") {
			t.Fatalf("monitor said %q, error %v", m.said.Text(), m.said.Err())
		}
	}
	go m.read(out)
	return m
}

func (m monitored) read(out io.Reader) {
	for lines := json.NewDecoder(out); ; {
		var r observe.Record
		if lines.Decode(&r) != nil {
			close(m.records)
			return
		}
		m.records <- r
	}
}

// await returns the next record that is wanted.
func (m monitored) await(t testing.TB, what string, wanted func(observe.Record) bool) observe.Record {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case r, ok := <-m.records:
			if !ok {
				t.Fatalf("monitor has ended before %s", what)
			}
			t.Log(r.Text())
			if wanted(r) {
				return r
			}
		case <-late:
			t.Fatalf("monitor has not shown %s", what)
		}
	}
}

const denyIngress = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: %s, annotations: {sealane.io/dry-run: %q}}
spec: {podSelector: {matchLabels: {app: b}}, policyTypes: [Ingress]}
---
`

const allowIngress = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: open, namespace: %s}
spec: {podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}], ports: [{port: 8080}]}]}
`

// TestMonitorAndExplain: what a policy denies is seen as it happens, with the
// policy that denies it and the lane that carries it, and explained likewise by
// the policies and by the tables of both nodes.
func TestMonitorAndExplain(t *testing.T) {
	ns := namespace(t, "e2e-monitor")
	all := nodes(t)
	a, b := all[0], all[len(all)-1]
	ips := start(t, ns, pod{Name: "a", Node: a, Labels: "{app: a}"}, pod{Name: "b", Node: b, Labels: "{app: b}"})
	m := monitor(t, "--to", ns+"/b", "--port=8080", "--protocol=tcp")
	connect := func() error {
		_, err := inPod(t, ns, "a", "curl -gsS -m 3 http://"+bracketed(ips["b"][0])+":8080/hostname")
		return err
	}
	explained := func(want ...string) {
		t.Helper()
		out, err := sealane(t, "policy", "explain", ns+"/a", ns+"/b:8080")
		t.Logf("explain:\n%s", out)
		if err != nil {
			t.Errorf("explain: %v", err)
		}
		for _, w := range append(want, "tables of node "+a+": allowed, they agree") {
			if strings.Count(out, w) != len(ips["b"]) {
				t.Errorf("not once for each family: %q", w)
			}
		}
	}

	apply(t, fmt.Sprintf(denyIngress, ns, "false"))
	eventually(t, 10*time.Second, "denied", func() error {
		if connect() == nil {
			return fmt.Errorf("connected")
		}
		return nil
	})
	denied := m.await(t, "what is denied", func(r observe.Record) bool { return r.Verdict == observe.Denied })
	if denied.Node != b || denied.Source.Pod != ns+"/a" || denied.Destination.Pod != ns+"/b" || denied.Reason != "policy_ingress" ||
		denied.Ingress == nil || denied.Ingress.Allowed || !slices.Contains(denied.Ingress.Isolating, ns+"/closed") {
		t.Errorf("denied: %s", denied.Text())
	}
	if l := denied.Lane; l == nil || !l.Encrypted || l.Peer != a || l.OwnGeneration == 0 || l.PeerGeneration == 0 {
		t.Errorf("denied: lane %+v", denied.Lane)
	}
	explained("denied: isolated by "+ns+"/closed", "tables of node "+b+": denied, they agree")

	apply(t, fmt.Sprintf(denyIngress, ns, "true"))
	eventually(t, 10*time.Second, "connected in dry run", connect)
	m.await(t, "what would be denied", func(r observe.Record) bool {
		return r.Verdict == observe.DryRunDenied && r.Ingress != nil && r.Ingress.DryRun && !r.Ingress.Allowed
	})
	explained("tables of node " + b + ": allowed, in dry run denied, they agree")

	apply(t, fmt.Sprintf(denyIngress, ns, "false")+fmt.Sprintf(allowIngress, ns))
	eventually(t, 10*time.Second, "connected by a rule", connect)
	m.await(t, "what a rule allows", func(r observe.Record) bool {
		return r.Verdict == observe.Allowed && r.Ingress != nil && slices.Contains(r.Ingress.Allowing, ns+"/open ingress[0] from[0] ports[0]")
	})
	explained("allowed by "+ns+"/open ingress[0] from[0] ports[0]", "tables of node "+b+": allowed, they agree")

	running := func() string {
		return strings.TrimSpace(onNode(t, b, "pgrep -fc '[s]ealaned monitor' || true")) // not the shell that asks
	}
	if n := running(); n != "1" {
		t.Errorf("%s commands of monitor run on node %s, want 1", n, b)
	}
	m.kill()
	eventually(t, 20*time.Second, "nothing is left of a monitor that was killed", func() error {
		if n := running(); n != "0" {
			return fmt.Errorf("%s commands run", n)
		}
		return nil
	})
}
