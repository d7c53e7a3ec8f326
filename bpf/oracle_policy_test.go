// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"net/netip"

	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/policy"
)

// judge says whether policy drops a packet, and whether dry-run policies would.
func (o *oracle) judge(t *tracked) (drop, trial Reason) {
	if t.state != nil && t.state.changes == o.changes && t.state.origin == t.origin {
		return 0, 0
	}
	if !t.origin.IsValid() {
		t.origin = o.whoBegan(t)
	}
	drop, trial = o.judgeFrom(t, t.origin)
	if drop != 0 && t.origin != t.sender && t.proto != protoTCP && t.quoted == nil {
		// Another flow may begin with it, by the same ports.
		t.origin = t.sender
		if drop, trial = o.judgeFrom(t, t.origin); drop == 0 {
			t.state.origin = t.origin
		}
	}
	if drop == 0 && t.state != nil && t.state.origin == t.origin {
		t.state.changes = o.changes
	}
	if drop == 0 {
		o.rememberOrigin(t)
	}
	return drop, trial
}

func (t *tracked) other(end netip.AddrPort) netip.AddrPort {
	if end == t.flow.a {
		return t.flow.b
	}
	return t.flow.a
}

// whoBegan is for a flow that is not known: a connection has been remembered, or is its
// sender's own; an error is of whoever sends it.
func (o *oracle) whoBegan(t *tracked) netip.AddrPort {
	if known, ok := o.origins[t.flow]; ok {
		return known
	}
	if t.quoted != nil {
		return t.other(t.sender)
	}
	return t.sender
}

func (o *oracle) rememberOrigin(t *tracked) {
	if t.proto != protoTCP || t.quoted != nil || t.state != nil && !t.isSYN() {
		return
	}
	if drop, _ := o.judgeFrom(t, t.other(t.origin)); drop == 0 {
		return
	}
	o.origins[t.flow] = t.origin
	if !t.isSYN() {
		o.note(*t, "")
	}
}

func (o *oracle) judgeFrom(t *tracked, origin netip.AddrPort) (drop, trial Reason) {
	f := t.flow
	from, to := f.a, f.b
	if origin == f.b {
		from, to = f.b, f.a
	}
	if from.Addr() == to.Addr() {
		return 0, 0
	}
	for _, side := range []struct {
		subject, peer netip.Addr
		reason        Reason
		sets          func(policy.EndpointPolicy) (now, trial policy.SetID)
	}{
		{from.Addr(), to.Addr(), ReasonPolicyEgress, func(g policy.EndpointPolicy) (now, trial policy.SetID) { return g.Egress, g.DryRunEgress }},
		{to.Addr(), from.Addr(), ReasonPolicyIngress, func(g policy.EndpointPolicy) (now, trial policy.SetID) { return g.Ingress, g.DryRunIngress }},
	} {
		g, guarded := o.tables.Endpoints[side.subject]
		if _, here := o.endpoints[side.subject]; here && !guarded {
			return ReasonPolicyUnknown, 0
		}
		masked := t.forwarded && side.reason == ReasonPolicyIngress // not the node itself
		if !guarded || o.find(side.peer).Kind == overlay.NodeLocal && !masked {
			continue
		}
		now, dry := side.sets(g)
		if !o.tables.Permits(now, side.peer, f.proto, to.Port()) {
			kind := o.find(side.peer).Kind
			_, known := o.tables.Identities[side.peer]
			if !known && (kind == overlay.PodLocal || kind == overlay.PodRemote || kind == overlay.Cluster) {
				return ReasonPolicyPeer, 0
			}
			return side.reason, 0
		}
		if trial == 0 && !o.tables.Permits(dry, side.peer, f.proto, to.Port()) {
			trial = side.reason
		}
	}
	return 0, trial
}
