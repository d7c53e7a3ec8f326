// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package hostnet

import (
	"fmt"
	"net/netip"
	"strings"

	"sigs.k8s.io/knftables"

	"github.com/sealane/sealane/overlay"
)

// The chains of the table.
const (
	translateChain = "postrouting" // changes source addresses
	confineChain   = "confine"     // limits which packets may leave by which device
	forwardChain   = "forward"
	arriveChain    = "prerouting"
	ownChain       = "output"
	inputChain     = "input"    // keeps pods from this node's ports
	rawInChain     = "raw"      // comes before connection tracking
	rawOutChain    = "rawout"   // the same for what this node sends
	fixedInChain   = "fixed"    // keeps connections from others' translations
	fixedOutChain  = "fixedout" // the same for what this node sends
)

// A connection between a node and a pod of another node has the addresses of two nodes,
// which the main table routes past the lanes. Connection tracking therefore remembers which
// connections use lanes. These bits belong to Sealane alone: kube-proxy uses 0x4000 and
// 0x8000, the portmap plugin 0x2000.
const (
	// outOfLane: the first packet of the connection came out of a lane. Its answers get the
	// same bit as a mark, and a rule sends marked packets to the lanes' table.
	outOfLane = overlay.LaneMark
	// intoLane: a pod of this node opened the connection to another node.
	intoLane = 0x01000000
)

// family holds the words that differ between the two address families.
type family struct {
	suffix, addr, match, multicast string
	is4                            bool
}

func families() []family {
	return []family{
		{suffix: "4", addr: "ipv4_addr", match: "ip", multicast: "224.0.0.0/4", is4: true},
		{suffix: "6", addr: "ipv6_addr", match: "ip6", multicast: "ff00::/8"},
	}
}

// transaction replaces the whole table at once, including chains of another version.
func transaction(nft knftables.Interface, m overlay.Masquerade, ports overlay.Ports, counted []Drop) *knftables.Transaction {
	t := table{nft.NewTransaction()}
	comment := "what pods send out of the overlay, and what must stay in it"
	t.tx.Add(&knftables.Table{}) // deleting a missing table is an error
	t.tx.Delete(&knftables.Table{})
	t.tx.Add(&knftables.Table{Comment: &comment})
	// This runs before kube-proxy, whose masquerade ends a connection when its lane
	// changes.
	t.chain(translateChain, knftables.NATType, knftables.PostroutingHook, knftables.SNATPriority+"-1")
	t.chain(confineChain, knftables.FilterType, knftables.PostroutingHook, knftables.FilterPriority)
	t.chain(forwardChain, knftables.FilterType, knftables.ForwardHook, knftables.FilterPriority)
	t.chain(arriveChain, knftables.FilterType, knftables.PreroutingHook, knftables.ManglePriority)
	t.chain(ownChain, knftables.RouteType, knftables.OutputHook, knftables.ManglePriority)
	t.chain(inputChain, knftables.FilterType, knftables.InputHook, knftables.FilterPriority)
	t.chain(rawInChain, knftables.FilterType, knftables.PreroutingHook, knftables.RawPriority)
	t.chain(rawOutChain, knftables.FilterType, knftables.OutputHook, knftables.RawPriority)
	t.chain(fixedInChain, knftables.NATType, knftables.PreroutingHook, knftables.DNATPriority+"-10")
	t.chain(fixedOutChain, knftables.NATType, knftables.OutputHook, knftables.DNATPriority+"-10")
	t.counters(counted)
	t.connections()
	for _, f := range families() {
		t.set(f, "pods", m.Pods)
		t.set(f, "cluster", m.Cluster)
		t.set(f, "nodes", m.Nodes)
		t.set(f, "peers", m.Peers)
		t.confine(f)
		t.sources(f, m.Sources)
		t.strays(f)
		t.outer(f, m, ports)
		t.set(f, "readers", ports.Readers)
	}
	t.input(m, ports)
	return t.tx
}

// table writes a transaction.
type table struct{ tx *knftables.Transaction }

func (t table) chain(name string, kind knftables.BaseChainType, hook knftables.BaseChainHook, priority knftables.BaseChainPriority) {
	t.tx.Add(&knftables.Chain{Name: name, Type: &kind, Hook: &hook, Priority: &priority})
}

func (t table) set(f family, name string, prefixes []netip.Prefix) {
	name += f.suffix
	t.tx.Add(&knftables.Set{Name: name, Type: f.addr, Flags: []knftables.SetFlag{knftables.IntervalFlag}})
	for _, p := range prefixes {
		if p.Addr().Is4() == f.is4 {
			t.tx.Add(&knftables.Element{Set: name, Key: []string{p.String()}})
		}
	}
}

// rule adds a rule. Words with a dollar sign in its text stand for the tunnels' devices,
// our mark bits and the words of the family.
func (t table) rule(chain, comment, text string, f family) {
	text = strings.NewReplacer(
		"$lanes", fmt.Sprintf("%q", overlay.DevicePrefix+"*"), "$group", fmt.Sprint(overlay.DeviceGroup),
		"$out_of_lane", fmt.Sprintf("%#x", outOfLane), "$into_lane", fmt.Sprintf("%#x", intoLane),
		"$answer", fmt.Sprintf("%#x", overlay.AnswerMark), "$is_forwarded", fmt.Sprintf("%#x", overlay.ForwardedMark),
		"$ip", f.match, "$multicast", f.multicast, "$f", f.suffix,
	).Replace(text)
	t.tx.Add(&knftables.Rule{Chain: chain, Comment: &comment, Rule: text})
}

// connections keeps each connection that came out of a lane, or went into one, in lanes:
// its answers find their way back, and a packet of it that arrives by another way is
// dropped. Only answers get the mark, so the lanes' own outer packets never have it.
func (t table) connections() {
	const answer = "ct direction reply ct mark & $out_of_lane == $out_of_lane meta mark set meta mark | $out_of_lane"
	both := family{}
	t.rule(arriveChain, "connections out of lanes",
		"iifname $lanes ct direction original ct mark & $out_of_lane == 0 ct mark set ct mark | $out_of_lane", both)
	// This also drops what the host would tell itself about an answer too large for the
	// lane: that would lower the path MTU to the whole node, which the lane's own packets
	// use.
	t.rule(arriveChain, "out of a lane, and then past it",
		"iifname != $lanes ct direction original ct mark & $out_of_lane == $out_of_lane drop", both)
	t.rule(arriveChain, "into a lane, answered past it",
		"iifname != $lanes ct direction reply ct mark & $into_lane == $into_lane drop", both)
	t.rule(arriveChain, "answers into lanes", answer, both)
	t.rule(ownChain, "answers into lanes", answer, both)
	t.rule(confineChain, "answers that missed their lane",
		"meta mark & $out_of_lane == $out_of_lane meta oifgroup != $group drop", both)
	// Netfilter does not translate a segment outside of its connection's window. The
	// segment would reach the pod from an address that the pod never spoke to, and the
	// pod's RST would end a healthy connection.
	t.rule(forwardChain, "segments that cannot be translated", "meta l4proto tcp ct state invalid meta oifgroup $group drop", both)
	t.rule(forwardChain, "not the node's own",
		"meta oifgroup $group ct direction original ct state != related meta mark set meta mark | $is_forwarded", both)
}

// confine makes a pod's packets to another node use a lane, and also what this node's own
// processes send to a pod in the guise of its node.
func (t table) confine(f family) {
	t.rule(confineChain, "pods to nodes past lanes", "$ip saddr @pods$f $ip daddr @peers$f meta oifgroup != $group drop", f)
	t.rule(confineChain, "connections into lanes",
		"oifname $lanes ct direction original ct original $ip saddr @pods$f $ip daddr @peers$f ct mark & $into_lane == 0 ct mark set ct mark | $into_lane", f)
	// Nothing tells whether a segment outside of its window belongs to a pod.
	t.rule(ownChain, "segments without a connection", "meta l4proto tcp ct state invalid $ip daddr @peers$f meta mark set meta mark | $out_of_lane", f)
}

// sources changes the source of three kinds of packets to this node's address: what a pod
// sends to the outside, what a pod begins with another node, and what enters a lane from
// any other address that no peer would accept from this node (that of a NodePort's client,
// for example).
//
// Into lanes, SNAT names the address: masquerade would end the connection when the device
// of its lane changes, as it does when keys rotate.
func (t table) sources(f family, own []netip.Addr) {
	t.rule(translateChain, "pods to the outside",
		"$ip saddr @pods$f $ip daddr != @cluster$f $ip daddr != $multicast meta oifgroup != $group masquerade fully-random", f)
	for _, a := range own {
		if a.Is4() != f.is4 {
			continue
		}
		to := "snat " + f.match + " to " + a.String() + " fully-random"
		t.rule(translateChain, "pods to other nodes",
			"oifname $lanes $ip saddr @pods$f $ip daddr @peers$f meta mark & $answer == 0 "+to, f)
		t.rule(translateChain, "foreign sources into lanes", "oifname $lanes $ip saddr != @pods$f $ip saddr != @nodes$f "+to, f)
	}
}
