// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// denyAll isolates every pod of its namespace, and allows nothing.
func denyAll() object {
	return object{"podSelector": object{}, "policyTypes": []string{"Ingress", "Egress"}}
}

// selects is a selector by one label.
func selects(key, value string) object {
	return object{"matchLabels": object{key: value}}
}

// birth is what test/probe saw from its first instruction on.
type birth struct {
	Sent, Dialled, Connected, Refused int
	Seen                              map[string]int
	Received                          [2]int
}

// firstTest is a namespace where pods are born, and stations elsewhere that
// count what comes from them, and send to where they will be.
type firstTest struct {
	ns      string
	nodes   []string
	sinks   map[string]*station // by node
	service []string            // addresses of all sinks together
	own     map[string][]string // addresses of nodes
	newest  map[string][]string // addresses of the newest pod, by node
	born    int
}

// firstBatch is how many pods are born at once.
const firstBatch = 24

func TestPolicyFromTheFirstInstruction(t *testing.T) {
	bringProbe(t)
	f := firstTest{nodes: nodes(t), own: map[string][]string{}, newest: map[string][]string{}}
	open := namespace(t, "e2e-first-open")
	apply(t, fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: sinks, namespace: %s}
spec: {selector: {role: sink}, ipFamilyPolicy: PreferDualStack, ports: [{name: tcp, port: 7000}, {name: udp, protocol: UDP, port: 7000}]}
`, open))
	var all []probe
	for _, n := range f.nodes {
		all = append(all, probe{Name: n, Node: n, Labels: map[string]string{"role": "sink"}})
	}
	f.sinks = stations(t, open, all...)
	for n, s := range f.sinks {
		f.newest[n], f.own[n] = s.ips, nodeIPs(t, n)
	}
	f.service = serviceIPs(t, open, "sinks")
	f.ns = namespace(t, "e2e-first")
	a := newAPI(t)
	a.policy(t, f.ns, "deny", denyAll())
	a.policy(t, f.ns, "open", object{"podSelector": selects("open", "yes"), "ingress": []object{{}}, "egress": []object{{}}})

	t.Run("allowed", func(t *testing.T) { // or else the counting proves nothing
		for name, b := range f.batch(t, 2*len(f.nodes), map[string]string{"open": "yes"}) {
			if b.Connected == 0 || b.escaped == 0 || b.got == 0 || b.Received[1] == 0 {
				t.Errorf("%s: %+v", name, b)
			}
		}
	})
	t.Run("denied", func(t *testing.T) {
		for left := setting("SEALANE_E2E_STARTS", 20); left > 0; left -= firstBatch {
			sent, dialled := 0, 0
			for name, b := range f.batch(t, min(left, firstBatch), nil) {
				if b.Sent == 0 || b.Dialled == 0 {
					t.Errorf("%s sent nothing: %+v", name, b)
				}
				if b.Connected+b.Refused+b.escaped+b.got+b.Received[1] > 0 {
					t.Errorf("%s: packets got through: %+v", name, b)
				}
				sent, dialled = sent+b.Sent, dialled+b.Dialled
			}
			t.Logf("%d pods were born; the last ones sent %d packets and tried %d connections", f.born, sent, dialled)
		}
	})
}

// life is a birth, and what others saw of it.
type life struct {
	birth
	escaped int // packets of it that came to a sink
	got     int // packets that came to it, from whomsoever but its node
}

// batch lets pods be born, and tells what became of each.
func (f *firstTest) batch(t *testing.T, count int, labels map[string]string) map[string]life {
	t.Helper()
	var pods []probe
	for i := range count {
		node := i % len(f.nodes)
		args := []string{"first"}
		for _, ip := range slices.Concat(f.sinks[f.nodes[node]].ips, f.sinks[f.nodes[(node+1)%len(f.nodes)]].ips, f.service) {
			args = append(args, at(ip, 7000))
		}
		pods = append(pods, probe{Name: fmt.Sprintf("born-%d", f.born), Node: f.nodes[node], Labels: labels, Args: args})
		f.born++
	}
	f.aim(t, count)
	before := f.seen(t)
	seen := births[birth](t, f.ns, pods)
	after, ips := f.seen(t), podAddresses(t, f.ns)
	found := map[string]life{}
	for _, p := range pods {
		l := life{birth: seen[p.Name]}
		for n := range f.sinks {
			l.escaped += from(after[n], ips[p.Name]) - from(before[n], ips[p.Name])
		}
		for k, n := range l.Seen {
			source, kind, _ := strings.Cut(k, " ")
			addr := netip.MustParseAddr(source)
			if !slices.Contains(f.own[p.Node], source) && !(addr.IsLinkLocalUnicast() && kind == "icmp") && !addr.IsUnspecified() {
				l.got += n
			}
		}
		found[p.Name] = l
		f.newest[p.Node] = later(f.newest[p.Node], ips[p.Name])
	}
	kubectl(t, "-n", f.ns, "delete", "pods", "--all", "--grace-period=0", "--force")
	return found
}

// later is which of two pods of a node got its addresses later, by IPv6 if there
// is some: these addresses do not start anew so soon.
func later(a, b []string) []string {
	last := len(a) - 1
	if len(b) != len(a) || netip.MustParseAddr(b[last]).Less(netip.MustParseAddr(a[last])) {
		return a
	}
	return b
}

// aim has the sink of each node, and that of another one, send to the addresses
// that the node's next pods will have.
func (f *firstTest) aim(t *testing.T, count int) {
	t.Helper()
	next := map[string][]string{}
	for _, n := range f.nodes {
		for _, ip := range f.newest[n] {
			addr := netip.MustParseAddr(ip)
			for range count/len(f.nodes) + 12 {
				if addr = addr.Next(); addr.Is4() && addr.As4()[3] == 255 {
					b := addr.As4()
					b[3] = 2 // the pool of a node is a circle
					addr = netip.AddrFrom4(b)
				}
				next[n] = append(next[n], at(addr.String(), 7000))
			}
		}
	}
	for i, n := range f.nodes {
		targets := slices.Concat(next[n], next[f.nodes[(i+1)%len(f.nodes)]])
		if err := f.sinks[n].order("bombard", object{"targets": targets, "everyMS": 50}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func (f *firstTest) seen(t *testing.T) map[string]map[string]int {
	t.Helper()
	all := map[string]map[string]int{}
	for n, s := range f.sinks {
		all[n] = s.seen(t)
	}
	return all
}

// call is a pod's first connection.
type call struct {
	Name          string
	MS            float64
	Retransmitted int
	Error         string
}

// TestPolicyNewPodIsKnown measures how long the first connection of a pod takes,
// to a pod of another node that allows it by its labels: that node learns whose
// address that is while the pod starts. Where it does not in time, the connection
// waits until its SYN is sent again, after a second; it is never refused.
func TestPolicyNewPodIsKnown(t *testing.T) {
	bringProbe(t)
	ns, all, a := namespace(t, "e2e-known"), nodes(t), newAPI(t)
	a.policy(t, ns, "deny", denyAll())
	a.policy(t, ns, "server", object{"podSelector": selects("role", "server"), "ingress": []object{{"from": []object{{"podSelector": selects("role", "client")}}}}})
	a.policy(t, ns, "client", object{"podSelector": selects("role", "client"), "policyTypes": []string{"Egress"}, "egress": []object{{"to": []object{{"podSelector": selects("role", "server")}}}}})
	var servers []probe
	for _, n := range all {
		servers = append(servers, probe{Name: n, Node: n, Labels: map[string]string{"role": "server"}})
	}
	to := stations(t, ns, servers...)
	var times []float64
	again := 0
	for left := setting("SEALANE_E2E_STARTS", 20); left > 0; left -= firstBatch {
		var pods []probe
		for i := range min(left, firstBatch) {
			ips := to[all[(i+1)%len(all)]].ips
			p := probe{Name: fmt.Sprintf("c%d", left-i), Node: all[i%len(all)], Labels: map[string]string{"role": "client"}}
			if i%2 == 0 { // labels that no other node has seen
				p.Labels["own"] = p.Name
			}
			p.Args = []string{"dial", at(ips[i/len(all)%len(ips)], 7000)}
			pods = append(pods, p)
		}
		for name, c := range births[call](t, ns, pods) {
			if c.Error != "" || c.MS > 10_000 {
				t.Errorf("%s: %+v", name, c)
			}
			times = append(times, c.MS)
			if c.Retransmitted > 0 {
				again++
			}
		}
		kubectl(t, "-n", ns, "delete", "pods", "-l", "role=client", "--grace-period=0", "--force")
	}
	if again > len(times)/2 {
		t.Errorf("%d of %d pods were not known to the other node when they began", again, len(times))
	}
	t.Logf("first connections of %d pods: p50 %.1f ms, p90 %.1f ms, p99 %.1f ms, longest %.1f ms; %d sent their SYN again",
		len(times), quantile(times, 0.5), quantile(times, 0.9), quantile(times, 0.99), quantile(times, 1), again)
}
