// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package hostnet

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"

	"github.com/sealane/sealane/overlay"
)

// Why packets are dropped, in the words of the data path.
const (
	nodePort    = "node_port"    // a pod's, to a port of this node that is Sealane's
	leakEgress  = "leak_egress"  // a pod's address on its way out
	leakIngress = "leak_ingress" // a pod's address on its way in, by a device that has no pods
)

// Drop counts the packets that were dropped for a reason.
type Drop struct {
	Reason         string
	Packets, Bytes uint64
}

// Drops returns what the table has dropped. Unlike other methods of Host, it may be called
// by any goroutine.
func (h *Host) Drops(ctx context.Context) ([]Drop, error) {
	var counters []*knftables.Counter
	err := h.links.Do(func() (err error) {
		counters, err = h.nft.ListCounters(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read counters of nftables table %s: %w", tableName, err)
	}
	var all []Drop
	for _, c := range counters {
		if c.Packets != nil && c.Bytes != nil {
			all = append(all, Drop{Reason: c.Name, Packets: *c.Packets, Bytes: *c.Bytes})
		}
	}
	return all, nil
}

// counters makes the counters, which go on from what was counted.
func (t table) counters(counted []Drop) {
	for _, reason := range []string{leakEgress, leakIngress, nodePort} {
		c := &knftables.Counter{Name: reason}
		if i := slices.IndexFunc(counted, func(d Drop) bool { return d.Reason == reason }); i >= 0 {
			c.Packets, c.Bytes = &counted[i].Packets, &counted[i].Bytes
		}
		t.tx.Add(c)
	}
}

// input keeps pods from the ports of this node that serve Sealane. What comes out of a lane
// for this node is always a pod's: nodes talk to each other past the lanes.
func (t table) input(m overlay.Masquerade, p overlay.Ports) {
	const drop = " counter name node_port drop"
	both := family{}
	if len(p.Tunnels) > 0 {
		t.rule(inputChain, "pods to tunnels", "iifgroup $group udp dport "+ports(p.Tunnels)+drop, both)
	}
	if p.Pairing != 0 {
		t.rule(inputChain, "pods to pairing", "iifgroup $group tcp dport "+ports([]uint16{p.Pairing})+drop, both)
	}
	if len(p.Own) == 0 {
		return
	}
	if !overlap(p.Readers, m.Cluster) {
		t.rule(inputChain, "pods to agent and controller", "iifgroup $group tcp dport "+ports(p.Own)+drop, both)
		return
	}
	for _, f := range families() {
		t.rule(inputChain, "pods to agent and controller",
			"iifgroup $group iifname != $lanes $ip saddr != @readers$f tcp dport "+ports(p.Own)+drop, f)
	}
}

func overlap(a, b []netip.Prefix) bool {
	return slices.ContainsFunc(a, func(x netip.Prefix) bool { return slices.ContainsFunc(b, x.Overlaps) })
}

func ports(all []uint16) string {
	words := make([]string, 0, len(all))
	for _, p := range all {
		words = append(words, fmt.Sprint(p))
	}
	return "{ " + strings.Join(words, ", ") + " }"
}

// strays stops pods' addresses on devices that have neither pods nor lanes, also on those
// that are no uplinks and have no programs: what comes from there in the guise of a pod,
// and what connection tracking cannot give this node's address.
func (t table) strays(f family) {
	t.rule(rawInChain, "pods' addresses from elsewhere",
		`iifgroup != $group iifname != "lo" $ip saddr @cluster$f counter name leak_ingress drop`, f)
	t.rule(confineChain, "pods' addresses to elsewhere",
		"oifgroup != $group $ip saddr @pods$f ct state invalid,untracked counter name leak_egress drop", f)
}

// outer keeps the packets between nodes, of tunnels and of pairing, out of reach of
// others' translations: a hostPort or an externalIP of a tenant with one of these ports
// would lead them into a pod.
//
// Tunnels' packets are not tracked at all. Those of pairing are, because a firewall on a
// node may let in answers by their connection; and so are VXLAN's on their way out, because
// by their port alone they cannot be told from an answer that has to enter a lane. These
// are translated first, to where they go anyway, and netfilter translates only once.
func (t table) outer(f family, m overlay.Masquerade, p overlay.Ports) {
	if len(p.Tunnels) > 0 {
		t.rule(rawInChain, "tunnels' packets",
			"iifgroup != $group $ip saddr @peers$f $ip daddr @nodes$f udp dport "+ports(p.Tunnels)+" notrack", f)
	}
	t.same(f, "here", m.Nodes)
	t.same(f, "there", m.Peers)
	if slices.Contains(p.Tunnels, overlay.VXLANPort) {
		t.rule(fixedOutChain, "tunnels' packets", "udp dport "+ports(p.Tunnels)+" dnat $ip to $ip daddr map @there$f", f)
	} else if len(p.Tunnels) > 0 {
		t.rule(rawOutChain, "tunnels' packets", "$ip daddr @peers$f udp sport "+ports(p.Tunnels)+" notrack", f)
	}
	if p.Pairing != 0 {
		port := ports([]uint16{p.Pairing})
		t.rule(fixedInChain, "pairing", "iifgroup != $group tcp dport "+port+" dnat $ip to $ip daddr map @here$f", f)
		t.rule(fixedOutChain, "pairing", "tcp dport "+port+" dnat $ip to $ip daddr map @there$f", f)
	}
}

// same makes a map from each address to itself.
func (t table) same(f family, name string, hosts []netip.Prefix) {
	name += f.suffix
	t.tx.Add(&knftables.Map{Name: name, Type: f.addr + " : " + f.addr})
	for _, h := range hosts {
		if h.Addr().Is4() == f.is4 {
			a := h.Addr().String()
			t.tx.Add(&knftables.Element{Map: name, Key: []string{a}, Value: []string{a}})
		}
	}
}
