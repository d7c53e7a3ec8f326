// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// marker is a text that the tests send and that must never be on the wire.
const marker = "sealane-e2e-marker-7d1f"

// probes is a shell script that tries TCP, UDP and ICMP to every address and
// prints a line for each failure.
func probes(addresses []string) string {
	var s strings.Builder
	for _, a := range addresses {
		fmt.Fprintf(&s, `curl -gsS --retry 2 --retry-connrefused -m 5 'http://%[1]s:8080/echo?msg=%[3]s' | grep -q %[3]s || echo "TCP %[2]s failed"
for i in 1 2 3; do r=$(echo 'echo %[3]s' | nc -u -w1 -W1 %[2]s 8081); [ "$r" = %[3]s ] && break; done; [ "$r" = %[3]s ] || echo "UDP %[2]s failed: $r"
ping -c1 -W3 %[2]s >/dev/null 2>&1 || echo "ICMP %[2]s failed"
`, bracketed(a), a, marker)
	}
	return s.String()
}

func TestEveryPairOfPods(t *testing.T) {
	ns := namespace(t, "e2e-pairs")
	all := nodes(t)
	var pods []pod
	for i := range 6 {
		pods = append(pods, pod{Name: fmt.Sprintf("p%d", i), Node: all[i%len(all)]})
	}
	ips := start(t, ns, pods...)
	families := 1
	if dual() {
		families = 2
	}
	wire, err := listen(filepath.Join(t.TempDir(), "wire.pcap"), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range pods {
		t.Run(from.Name, func(t *testing.T) {
			var to []string
			for _, p := range pods {
				if len(ips[p.Name]) != families {
					t.Fatalf("pod %s has addresses %v, want %d", p.Name, ips[p.Name], families)
				}
				if p.Name != from.Name {
					to = append(to, ips[p.Name]...)
				}
			}
			out, err := inPod(t, ns, from.Name, probes(to))
			if err != nil || strings.TrimSpace(out) != "" {
				t.Errorf("from %s on %s: %v\n%s", from.Name, from.Node, err, out)
			}
		})
	}
	t.Run("nodes", func(t *testing.T) {
		var to []string
		for _, p := range pods {
			to = append(to, ips[p.Name]...)
		}
		for _, n := range all {
			if out := onNode(t, n, strings.ReplaceAll(probes(to), "--retry-connrefused", "")); strings.TrimSpace(out) != "" {
				t.Errorf("from node %s:\n%s", n, out)
			}
		}
	})
	seen, err := wire.stop()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(seen, ".5187") && !strings.Contains(seen, "UDP") {
		t.Error("the capture shows no lane: it proves nothing")
	}
	if found, err := wire.contains(marker); err != nil || found {
		t.Errorf("payload in clear on the wire: %v, %v", found, err)
	}
}

// TestPodToNode goes from pods to every node's own address, and keeps the
// node's address as source on the way from node to pod. To other nodes a pod has
// its node's address, and is in the lane both ways.
func TestPodToNode(t *testing.T) {
	ns := namespace(t, "e2e-nodes")
	all := nodes(t)
	host := "  hostNetwork: true\n"
	ips := start(t, ns, pod{Name: "client", Node: all[0]}, pod{Name: "server", Node: all[len(all)-1]},
		pod{Name: "host", Node: all[1%len(all)], Args: "[netexec, --http-port=18090, --udp-port=18091]", Extra: host})
	t.Run("host network", func(t *testing.T) { seenAsNode(t, ns, nodeIPs(t, all[0]), ips["host"]) })
	for _, n := range all {
		for _, a := range nodeIPs(t, n) {
			if out, err := inPod(t, ns, "client", "ping -c1 -W3 "+a+" && curl -gsSk -m 5 -o /dev/null https://"+bracketed(a)+":10250/healthz"); err != nil {
				t.Errorf("client to node %s (%s): %v\n%s", n, a, err, out)
			}
			for _, to := range ips["server"] {
				if strings.Contains(to, ":") != strings.Contains(a, ":") {
					continue
				}
				got := onNode(t, n, "curl -gsS -m 5 http://"+bracketed(to)+":8080/clientip")
				if host, _, _ := strings.Cut(strings.TrimPrefix(got, "["), "]"); !strings.HasPrefix(host, a) {
					t.Errorf("node %s to %s: the pod saw %q, want the node's address %s", n, to, got, a)
				}
			}
		}
	}
}

// seenAsNode has the pod "client" speak to a server on another node's host
// network, by TCP and by UDP, and looks at what is on the wire meanwhile.
func seenAsNode(t *testing.T, ns string, own, servers []string) {
	wire, err := listen(filepath.Join(t.TempDir(), "wire.pcap"), "")
	if err != nil {
		t.Fatal(err)
	}
	for i, server := range servers {
		http := "http://" + bracketed(server) + ":18090/"
		out, err := inPod(t, ns, "client", fmt.Sprintf(`curl -gsS -m 5 '%[1]secho?msg=%[2]s'; echo; curl -gsS -m 5 %[1]sclientip; echo
for i in 1 2 3; do r=$(echo 'echo %[2]s' | nc -u -w1 -W1 %[3]s 18091); [ "$r" = %[2]s ] && break; done; echo "$r"`, http, marker, server))
		got := strings.Fields(out)
		if err != nil || len(got) != 3 || got[0] != marker || got[2] != marker || !strings.HasPrefix(got[1], bracketed(own[i])+":") {
			t.Errorf("to %s: %q, want the node's address %s between two echoes: %v", server, out, own[i], err)
		}
	}
	if _, err := wire.stop(); err != nil {
		t.Fatal(err)
	}
	if found, err := wire.contains(marker); err != nil || found {
		t.Errorf("payload in clear on the wire: %v, %v", found, err)
	}
}
