// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"net/netip"
	"slices"

	"github.com/sealane/sealane/bpf/words"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/policy"
)

// oracle is the data path's decision written as plainly as possible, to be
// compared with the programs on random packets. It knows nothing of headers,
// maps or byte order.
type oracle struct {
	endpoints map[netip.Addr]int
	forwards  []Forward
	flows     map[oracleFlow]*oracleState
	origins   map[oracleFlow]netip.AddrPort // who began a connection that only one end may begin
	datagrams map[oracleFlow]testPacket     // the first fragment, by ends without ports
	tables    policy.Tables
	changes   int // of the tables
}

// oracleFlow is two ends: of a flow, in an order that does not depend on the direction.
type oracleFlow struct {
	a, b  netip.AddrPort
	proto uint8
}

type oracleState struct {
	class   string         // "fast" or "stack"; "": begun by a pod with a node, which has not answered
	origin  netip.AddrPort // who began it; invalid: unknown
	changes int            // of the tables when it was last allowed
}

// verdict is the program's answer and what it counted.
type verdict struct {
	Action uint32
	Drop   Reason // 0: none
	Path   string // "": not counted
	Answer bool   // marked as a pod's answer to a node
	Trial  Reason // why it would have been dropped
}

const (
	answerMark    = 0x80000000
	forwardedMark = 0x40000000
	laneMark      = 0x20000000

	actOK       = 0
	actShot     = 2
	actRedirect = 7
	actNext     = 0xffffffff
)

func (o *oracle) find(a netip.Addr) Forward {
	best := Forward{}
	for _, f := range o.forwards {
		if f.Prefix.Contains(a) && (!best.Prefix.IsValid() || f.Prefix.Bits() > best.Prefix.Bits()) {
			best = f
		}
	}
	return best
}

func ends(p testPacket) (from, to netip.AddrPort) {
	switch {
	case p.echo():
		return netip.AddrPortFrom(p.src, p.sport), netip.AddrPortFrom(p.dst, p.sport)
	case p.proto == protoTCP || p.proto == protoUDP || p.proto == protoSCTP:
		return netip.AddrPortFrom(p.src, p.sport), netip.AddrPortFrom(p.dst, p.dport)
	}
	return netip.AddrPortFrom(p.src, 0), netip.AddrPortFrom(p.dst, 0)
}

// inOrder puts the end first that the programs call the lower one: they compare
// words as they stand in memory.
func inOrder(a, b netip.AddrPort) (netip.AddrPort, netip.AddrPort) {
	x, y := words.Of(a.Addr()), words.Of(b.Addr())
	if c := slices.Compare(x[:], y[:]); c > 0 || c == 0 && words.Port(a.Port()) > words.Port(b.Port()) {
		return b, a
	}
	return a, b
}

func flowOf(p testPacket) oracleFlow {
	a, b := inOrder(ends(p))
	return oracleFlow{a, b, p.proto}
}

func (p testPacket) isSYN() bool {
	return p.proto == protoTCP && p.fragment < 2 && p.flags&(flagSYN|flagACK) == flagSYN
}

// tracked is a packet, the flow it is of, and what is known of that.
type tracked struct {
	testPacket
	flow   oracleFlow
	state  *oracleState // nil: unknown
	sender netip.AddrPort
	origin netip.AddrPort
}

func datagramOf(p testPacket) oracleFlow {
	return oracleFlow{netip.AddrPortFrom(p.src, 0), netip.AddrPortFrom(p.dst, 0), p.proto}
}

// parse gives a later fragment the ports of the first. false: a segment's header is not
// all in one packet, or may be hidden by one that begins within it. What a frame holds
// behind its packet is nobody's business.
func (o *oracle) parse(p testPacket) (testPacket, bool) {
	if p.proto == protoTCP && (p.fragment == 3 || p.tiny && p.fragment < 2) {
		return p, false
	}
	if p.fragment > 1 {
		first := o.datagrams[datagramOf(p)]
		p.sport, p.dport = first.sport, first.dport
	}
	return p, true
}

// pass keeps the ports of a first fragment that may go on.
func (o *oracle) pass(p testPacket) {
	if p.fragment == 1 {
		o.datagrams[datagramOf(p)] = p
	}
}

// peerPort is the port of UDP by which the oracle's nodes speak to each other.
const peerPort = 3

// track finds a packet's flow; false: it is an ICMP error about what its receiver
// has never sent.
func (o *oracle) track(p testPacket) (tracked, bool) {
	t := tracked{testPacket: p, flow: flowOf(p)}
	t.sender, _ = ends(p)
	if p.quoted != nil {
		t.flow = flowOf(*p.quoted)
		t.sender, _ = ends(*p.quoted)
	}
	t.state = o.flows[t.flow]
	switch {
	case t.state != nil && !p.isSYN():
		t.origin = t.state.origin
	case p.quoted == nil && (p.isSYN() || p.proto != protoTCP):
		t.origin = t.sender
	}
	return t, p.quoted == nil || p.quoted.src == p.dst
}

func (t tracked) class() string {
	if t.state == nil {
		return ""
	}
	return t.state.class
}

// begins says whether the flow is noted, or noted anew, with this packet.
func (t tracked) begins(class string) bool {
	switch {
	case t.quoted != nil || t.ttl <= 1:
		return false
	case t.state == nil:
		return t.proto != protoTCP || t.isSYN()
	case t.isSYN():
		return t.state.class != class || t.state.origin != t.origin
	}
	return t.proto != protoTCP && t.state.class == "" && class != ""
}

func (o *oracle) note(t tracked, class string) {
	o.flows[t.flow] = &oracleState{class, t.origin, o.changes}
}

func (o *oracle) fast(t tracked) bool {
	switch {
	case t.begins("fast"):
		o.note(t, "fast")
		return t.fragment == 0
	case t.fragment != 0 || t.ttl <= 1:
		return false
	case t.quoted != nil:
		return t.class() != "stack"
	}
	return t.class() == "fast"
}

func (t tracked) goesOnFast() bool {
	return t.fragment == 0 && t.ttl > 1 && !t.isSYN() && t.class() == "fast"
}

// answers says whether a packet to a node that goes by the stack is part of a flow
// that the node began on the short way.
func (t tracked) answers() bool {
	if t.fragment > 1 || t.quoted != nil || t.isSYN() {
		return false
	}
	return t.class() == "fast" || t.proto == protoTCP && (t.state == nil || t.class() == "" && t.state.origin != t.sender)
}

func (o *oracle) stack(t tracked) {
	if t.fragment > 1 || t.quoted != nil {
		return
	}
	// TCP keeps its way until the next SYN. All else has no such beginning: a whole
	// packet that the stack forwards has been translated.
	translated := t.isSYN() || t.proto != protoTCP && t.fragment == 0
	switch {
	case t.state == nil, t.isSYN() && (t.class() != "stack" || t.state.origin != t.origin):
		o.note(t, "stack")
	case t.class() == "" || t.class() == "fast" && translated:
		t.state.class = "stack"
	}
}

func dropped(r Reason) verdict { return verdict{Action: actShot, Drop: r} }

func (o *oracle) podEgress(p testPacket, device int) verdict {
	if p.vlan {
		return dropped(ReasonProtocol)
	}
	p, whole := o.parse(p)
	if !whole {
		return dropped(ReasonMalformed)
	}
	if i, ok := o.endpoints[p.src]; !ok || i != device {
		if p.src.Is6() && (p.src.IsLinkLocalUnicast() || p.src.IsUnspecified()) {
			return dropped(ReasonLinkLocal)
		}
		return dropped(ReasonSpoofedSource)
	}
	if p.dst.IsMulticast() || p.dst == netip.MustParseAddr("255.255.255.255") {
		return dropped(ReasonMulticast)
	}
	if p.dst.IsLoopback() {
		return dropped(ReasonLoopback)
	}
	f := o.find(p.dst)
	ofPods := f.Kind == overlay.PodLocal || f.Kind == overlay.PodRemote || f.Kind == overlay.Cluster
	if !ofPods && p.proto == protoUDP && p.dport == peerPort {
		return dropped(ReasonNodePort)
	}
	t, ok := o.track(p)
	if !ok || p.quoted != nil && p.src != t.flow.a.Addr() && p.src != t.flow.b.Addr() {
		return dropped(ReasonMalformed)
	}
	var trial Reason
	if f.Kind != overlay.NodeLocal {
		var drop Reason
		if drop, trial = o.judge(&t); drop != 0 {
			return dropped(drop)
		}
	}
	o.pass(p)
	v := o.forward(t, f)
	v.Trial = trial
	return v
}

func (o *oracle) forward(t tracked, f Forward) verdict {
	_, here := o.endpoints[t.dst]
	switch {
	case f.Kind == overlay.PodLocal && !here:
		return verdict{Action: actOK, Drop: ReasonNoEndpoint}
	case f.Kind == overlay.PodLocal && o.fast(t):
		return verdict{Action: actRedirect, Path: "local"}
	case f.Kind == overlay.Cluster, (f.Kind == overlay.PodRemote || f.Kind == overlay.NodeRemote) && f.Index == 0:
		return verdict{Action: actOK, Drop: ReasonNoLane}
	case f.Kind == overlay.PodRemote && o.fast(t), f.Kind == overlay.NodeRemote && t.goesOnFast():
		return verdict{Action: actRedirect, Path: "lane_out"}
	}
	answer := f.Kind == overlay.NodeRemote && t.answers()
	if class, noted := map[overlay.ForwardKind]string{overlay.NodeRemote: "", 0: "stack"}[f.Kind]; noted && !answer && t.begins(class) {
		o.note(t, class)
	}
	return verdict{Action: actOK, Path: "stack_out", Answer: answer}
}

// byStack is what becomes of a packet that the stack has sent.
func (o *oracle) byStack(p testPacket, tracks bool) verdict {
	t, ok := o.track(p)
	own := o.find(p.src).Kind == overlay.NodeLocal && !p.forwarded
	if !ok && (tracks || !own) {
		return dropped(ReasonMalformed)
	}
	if own { // the node itself is always let in, and nothing is remembered
		return verdict{Action: actOK}
	}
	drop, trial := o.judge(&t)
	if drop != 0 {
		return dropped(drop)
	}
	o.pass(p)
	o.stack(t)
	return verdict{Action: actOK, Trial: trial}
}

func (o *oracle) podIngress(p testPacket) verdict {
	if p.vlan {
		return verdict{Action: actOK}
	}
	p, whole := o.parse(p)
	if !whole {
		return dropped(ReasonMalformed)
	}
	v := o.byStack(p, true)
	if v.Drop == 0 {
		o.pass(p)
		v.Path = "stack_in"
	}
	return v
}

func (o *oracle) laneIngress(p testPacket) verdict {
	if p.vlan {
		return dropped(ReasonProtocol)
	}
	p, whole := o.parse(p)
	if !whole {
		return dropped(ReasonMalformed)
	}
	peer := o.find(p.src).Kind
	if peer != overlay.PodRemote && peer != overlay.NodeRemote {
		return dropped(ReasonLaneSource)
	}
	if _, here := o.endpoints[p.dst]; here {
		return o.intoPod(p)
	}
	switch o.find(p.dst).Kind {
	case overlay.NodeLocal:
		return verdict{Action: actOK}
	case overlay.PodLocal:
		return dropped(ReasonNoEndpoint)
	}
	return dropped(ReasonLaneDestination)
}

func (o *oracle) intoPod(p testPacket) verdict {
	t, ok := o.track(p)
	if !ok {
		return dropped(ReasonMalformed)
	}
	drop, trial := o.judge(&t)
	if drop != 0 {
		return dropped(drop)
	}
	o.pass(p)
	if o.fast(t) {
		return verdict{Action: actRedirect, Path: "lane_in", Trial: trial}
	}
	return verdict{Action: actOK, Trial: trial}
}

func (o *oracle) laneEgress(p testPacket) verdict {
	if p.vlan {
		return dropped(ReasonProtocol)
	}
	p, whole := o.parse(p)
	if !whole {
		return dropped(ReasonMalformed)
	}
	if k := o.find(p.dst).Kind; k != overlay.PodRemote && k != overlay.NodeRemote {
		return dropped(ReasonNoLane)
	}
	return o.byStack(p, false)
}

func (o *oracle) uplink(p testPacket, leak Reason) verdict {
	if p.vlan {
		return verdict{Action: actNext}
	}
	for _, a := range []netip.Addr{p.src, p.dst} {
		if k := o.find(a).Kind; k == overlay.PodRemote || k == overlay.PodLocal || k == overlay.Cluster {
			return verdict{Action: actShot, Drop: leak}
		}
	}
	return verdict{Action: actNext}
}
