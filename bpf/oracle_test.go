// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"net/netip"
)

// oracle is the data path's decision written as plainly as possible, to be
// compared with the programs on random packets. It knows nothing of headers,
// maps or byte order.
type oracle struct {
	endpoints map[netip.Addr]int
	forwards  []Forward
	flows     map[oracleFlow]string // "fast" or "stack"
}

type oracleFlow struct {
	a, b  netip.AddrPort
	proto uint8
}

// verdict is the program's answer and what it counted.
type verdict struct {
	Action uint32
	Drop   Reason // 0: none
	Path   string // "": not counted
	Answer bool   // marked as a pod's answer to a node
}

const (
	answerMark = 0x80000000
	laneMark   = 0x20000000

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

func flowOf(p testPacket) oracleFlow {
	a, b := netip.AddrPortFrom(p.src, 0), netip.AddrPortFrom(p.dst, 0)
	switch {
	case p.echo():
		a, b = netip.AddrPortFrom(p.src, p.sport), netip.AddrPortFrom(p.dst, p.sport)
	case p.proto == protoTCP || p.proto == protoUDP || p.proto == 132:
		a, b = netip.AddrPortFrom(p.src, p.sport), netip.AddrPortFrom(p.dst, p.dport)
	}
	if b.Compare(a) < 0 {
		a, b = b, a
	}
	return oracleFlow{a, b, p.proto}
}

func (p testPacket) isSYN() bool { return p.proto == protoTCP && p.flags&(flagSYN|flagACK) == flagSYN }

func (o *oracle) fast(p testPacket) bool {
	if p.fragment != 0 || p.ttl <= 1 {
		return false
	}
	if p.quoted != nil {
		return o.flows[flowOf(*p.quoted)] != "stack"
	}
	known := o.flows[flowOf(p)]
	switch {
	case p.isSYN(), known == "" && p.proto != protoTCP:
		o.flows[flowOf(p)] = "fast"
		return true
	default:
		return known == "fast"
	}
}

func (o *oracle) goesOnFast(p testPacket) bool {
	if p.fragment != 0 || p.ttl <= 1 || p.isSYN() {
		return false
	}
	if p.quoted != nil {
		p = *p.quoted
	}
	return o.flows[flowOf(p)] == "fast"
}

// answers says whether a packet to a node that goes by the stack is part of a flow
// that the node began on the short way.
func (o *oracle) answers(p testPacket) bool {
	if p.fragment == 2 || p.quoted != nil || p.isSYN() {
		return false
	}
	known := o.flows[flowOf(p)]
	return known == "fast" || known == "" && p.proto == protoTCP
}

func (o *oracle) stack(p testPacket) {
	if p.fragment == 2 || p.quoted != nil {
		return
	}
	// TCP keeps its way until the next SYN. All else has no such beginning: a whole
	// packet that the stack forwards has been translated.
	translated := p.isSYN() || p.proto != protoTCP && p.fragment == 0
	if translated || o.flows[flowOf(p)] == "" {
		o.flows[flowOf(p)] = "stack"
	}
}

func (o *oracle) podEgress(p testPacket, device int) verdict {
	if p.vlan {
		return verdict{Action: actShot, Drop: ReasonProtocol}
	}
	if i, ok := o.endpoints[p.src]; !ok || i != device {
		if p.src.Is6() && (p.src.IsLinkLocalUnicast() || p.src.IsUnspecified()) {
			return verdict{Action: actShot, Drop: ReasonLinkLocal}
		}
		return verdict{Action: actShot, Drop: ReasonSpoofedSource}
	}
	if p.dst.IsMulticast() || p.dst == netip.MustParseAddr("255.255.255.255") {
		return verdict{Action: actShot, Drop: ReasonMulticast}
	}
	_, here := o.endpoints[p.dst]
	f := o.find(p.dst)
	switch {
	case f.Kind == PodLocal && !here:
		return verdict{Action: actOK, Drop: ReasonNoEndpoint}
	case f.Kind == PodLocal && o.fast(p):
		return verdict{Action: actRedirect, Path: "local"}
	case f.Kind == Cluster, (f.Kind == PodRemote || f.Kind == NodeRemote) && f.Index == 0:
		return verdict{Action: actOK, Drop: ReasonNoLane}
	case f.Kind == PodRemote && o.fast(p), f.Kind == NodeRemote && o.goesOnFast(p):
		return verdict{Action: actRedirect, Path: "lane_out"}
	}
	answer := f.Kind == NodeRemote && o.answers(p)
	if !answer && p.quoted == nil && p.ttl > 1 && f.Kind != NodeLocal && (p.isSYN() || p.proto != protoTCP && o.flows[flowOf(p)] == "") {
		o.flows[flowOf(p)] = "stack"
	}
	return verdict{Action: actOK, Path: "stack_out", Answer: answer}
}

func (o *oracle) podIngress(p testPacket) verdict {
	if p.vlan {
		return verdict{Action: actOK}
	}
	if o.find(p.src).Kind != NodeLocal {
		o.stack(p)
	}
	return verdict{Action: actOK, Path: "stack_in"}
}

func (o *oracle) laneIngress(p testPacket) verdict {
	if p.vlan {
		return verdict{Action: actShot, Drop: ReasonProtocol}
	}
	if k := o.find(p.src).Kind; k != PodRemote && k != NodeRemote {
		return verdict{Action: actShot, Drop: ReasonLaneSource}
	}
	if _, here := o.endpoints[p.dst]; here {
		if o.find(p.src).Kind == NodeRemote && p.proto != protoTCP && p.quoted == nil && o.flows[flowOf(p)] == "stack" {
			o.flows[flowOf(p)] = "fast"
		}
		if o.fast(p) {
			return verdict{Action: actRedirect, Path: "lane_in"}
		}
		return verdict{Action: actOK}
	}
	switch o.find(p.dst).Kind {
	case NodeLocal:
		return verdict{Action: actOK}
	case PodLocal:
		return verdict{Action: actShot, Drop: ReasonNoEndpoint}
	}
	return verdict{Action: actShot, Drop: ReasonLaneDestination}
}

func (o *oracle) laneEgress(p testPacket) verdict {
	if p.vlan {
		return verdict{Action: actShot, Drop: ReasonProtocol}
	}
	if k := o.find(p.dst).Kind; k != PodRemote && k != NodeRemote {
		return verdict{Action: actShot, Drop: ReasonNoLane}
	}
	if o.find(p.src).Kind != NodeLocal {
		o.stack(p)
	}
	return verdict{Action: actOK}
}

func (o *oracle) uplink(p testPacket, leak Reason) verdict {
	if p.vlan {
		return verdict{Action: actNext}
	}
	for _, a := range []netip.Addr{p.src, p.dst} {
		if k := o.find(a).Kind; k == PodRemote || k == PodLocal || k == Cluster {
			return verdict{Action: actShot, Drop: leak}
		}
	}
	return verdict{Action: actNext}
}
