// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sealane/sealane/daemonset/status"
)

// agentOf gives the agent's pod on a node.
func agentOf(t testing.TB, node string) string {
	t.Helper()
	return strings.TrimSpace(kubectl(t, "-n", "sealane-system", "get", "pods", "-l", "app.kubernetes.io/component=agent",
		"--field-selector", "spec.nodeName="+node, "-o", "jsonpath={.items[0].metadata.name}"))
}

// agentToken gives a token such as the agent of a node has: bound to its pod.
func agentToken(t testing.TB, node string) string {
	t.Helper()
	name := agentOf(t, node)
	uid := kubectl(t, "-n", "sealane-system", "get", "pod", name, "-o", "jsonpath={.metadata.uid}")
	return strings.TrimSpace(kubectl(t, "-n", "sealane-system", "create", "token", "sealane-agent",
		"--bound-object-kind", "Pod", "--bound-object-name", name, "--bound-object-uid", uid))
}

// as runs kubectl with a token instead of the administrator's certificate.
func as(t testing.TB, token, stdin string, args ...string) (string, error) {
	t.Helper()
	server := kubectl(t, "config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
	base := []string{"kubectl", "--kubeconfig=/dev/null", "--server=" + server, "--insecure-skip-tls-verify", "--token=" + token}
	return lab(t.Context(), stdin, append(base, args...)...)
}

func nodeKey(t testing.TB, node string) map[string]any {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal([]byte(kubectl(t, "get", "nodekey", node, "-o", "json")), &object); err != nil {
		t.Fatal(err)
	}
	return object
}

// refusals gives how often a node's agent has refused statements, by reason.
func refusals(t testing.TB, node string) map[string]uint64 {
	t.Helper()
	out := kubectl(t, "get", "--raw", "/api/v1/namespaces/sealane-system/pods/"+agentOf(t, node)+":9754/proxy"+status.Path)
	var report status.Node
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	all := map[string]uint64{}
	for _, r := range report.Refused {
		all[r.Reason] += r.Count
	}
	return all
}

// TestForgedNodeKeys: whatever is written into a node's NodeKey, its peers
// refuse it with a reason and traffic goes on.
func TestForgedNodeKeys(t *testing.T) {
	ns := namespace(t, "e2e-forged")
	all := nodes(t)
	victim, reader := all[1], all[0]
	ips := start(t, ns, pod{Name: "client", Node: reader}, pod{Name: "server", Node: victim})
	spec := func(o map[string]any) map[string]any { return o["spec"].(map[string]any) }
	for _, tc := range []struct {
		name, reason string
		forge        func(object map[string]any)
	}{
		{"signature of another node", "signature", func(o map[string]any) {
			spec(o)["signature"] = spec(nodeKey(t, all[2]))["signature"]
		}},
		{"statement of another node", "identity", func(o map[string]any) {
			other := spec(nodeKey(t, all[2]))
			for _, k := range []string{"payload", "signature", "certificateChain"} {
				spec(o)[k] = other[k]
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := refusals(t, reader)[tc.reason]
			object := nodeKey(t, victim)
			tc.forge(object)
			delete(object["metadata"].(map[string]any), "resourceVersion")
			data, err := json.Marshal(object)
			if err != nil {
				t.Fatal(err)
			}
			// The victim puts its own back at once, so the forger insists.
			eventually(t, 30*time.Second, "refusal for "+tc.reason, func() error {
				if _, err := lab(t.Context(), string(data), "kubectl", "replace", "-f", "-"); err != nil {
					t.Log(err)
				}
				if got := refusals(t, reader)[tc.reason]; got <= before {
					return fmt.Errorf("%s refused %v", reader, refusals(t, reader))
				}
				return nil
			})
			if out, err := inPod(t, ns, "client", "curl -gsS -m 5 http://"+bracketed(ips["server"][0])+":8080/hostname"); err != nil || strings.TrimSpace(out) != "server" {
				t.Errorf("traffic did not go on: %q, %v", out, err)
			}
		})
	}
	t.Run("Event", func(t *testing.T) {
		eventually(t, 30*time.Second, "an Event", func() error {
			if out := kubectl(t, "get", "events", "-A", "--field-selector", "reason=KeyStatementRefused", "-o", "name"); out == "" {
				return fmt.Errorf("none")
			}
			return nil
		})
	})
}

// TestAgentIsConfined: the token of one node's agent writes no other node's
// NodeKey, and gets no certificate in another node's name.
func TestAgentIsConfined(t *testing.T) {
	all := nodes(t)
	token := agentToken(t, all[0])
	object := nodeKey(t, all[1])
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := as(t, token, string(data), "replace", "-f", "-"); err == nil || !strings.Contains(err.Error(), "orbidden") && !strings.Contains(err.Error(), "denied") {
		t.Errorf("agent of %s replaced the NodeKey of %s: %q, %v", all[0], all[1], out, err)
	}
	if out, err := as(t, token, "", "get", "secrets", "-n", "sealane-system"); err == nil {
		t.Errorf("an agent may read secrets: %q", out)
	}
}

// TestForeignCSRIsDenied: the agent of one node asks for a certificate in the
// name of another; the controller denies it and says why.
func TestForeignCSRIsDenied(t *testing.T) {
	all := nodes(t)
	uid := func(n string) string { return kubectl(t, "get", "node", n, "-o", "jsonpath={.metadata.uid}") }
	domain := kubectl(t, "get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")
	request := newCSR(t, "spiffe://"+domain+"/node/"+all[1]+"/"+uid(all[1]))
	name := "sealane-" + all[0] + ".forged"
	manifest := fmt.Sprintf(`apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: %s}
spec:
  signerName: sealane.io/node
  expirationSeconds: 86400
  usages: [digital signature, client auth, server auth]
  request: %s
`, name, request)
	if _, err := as(t, agentToken(t, all[0]), manifest, "create", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lab(t.Context(), "", "kubectl", "delete", "csr", name) })
	eventually(t, 30*time.Second, "denial", func() error {
		out := kubectl(t, "get", "csr", name, "-o", "jsonpath={.status}")
		if strings.Contains(out, `"Approved"`) {
			t.Fatalf("approved: %s", out)
		}
		if !strings.Contains(out, `"Denied"`) {
			return fmt.Errorf("status %s", out)
		}
		t.Log(out)
		return nil
	})
}

// TestNodeCertificateIsNoLogin: a node's certificate, with its key, opens
// nothing at the API server; also where the cluster's own CA is its root.
func TestNodeCertificateIsNoLogin(t *testing.T) {
	for _, n := range nodes(t) {
		out := onNode(t, n, `curl -sk --http1.1 -m 10 -w '\n%{http_code}' --cert /var/lib/sealane/keys/node.crt --key /var/lib/sealane/keys/node.key \
  -H 'Content-Type: application/json' -d '{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}' \
  https://`+nodeIP(t, nodes(t)[0])+`:6443/apis/authentication.k8s.io/v1/selfsubjectreviews`)
		if !strings.HasSuffix(out, "\n401") && !strings.HasSuffix(out, "\n403") {
			t.Errorf("the API server let the certificate of %s in: %s", n, out)
		}
		if strings.Contains(out, "system:") && !strings.Contains(out, "system:anonymous") {
			t.Errorf("the certificate of %s is somebody: %s", n, out)
		}
	}
}
