// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policy

import (
	"net/netip"
	"slices"
)

// Verdict is what a node's tables say of the first packet of a connection: per
// direction, and as it would be with policies in dry run.
type Verdict struct {
	Egress, Ingress             bool
	DryRunEgress, DryRunIngress bool
}

// Allowed reports whether the packet passes.
func (v Verdict) Allowed() bool { return v.Egress && v.Ingress }

// DryRunAllowed reports whether it would pass with policies in dry run.
func (v Verdict) DryRunAllowed() bool { return v.DryRunEgress && v.DryRunIngress }

// Verdict looks up as the data path of one node does. A direction without an endpoint policy, which
// may be on another node, counts as allowed. The node's own addresses are always allowed, and so
// is a pod to itself.
func (t Tables) Verdict(x Traffic, node ...netip.Addr) Verdict {
	from, to := x.From.Unmap(), x.To.Unmap()
	v := Verdict{true, true, true, true}
	if from == to {
		return v
	}
	if e, listed := t.Endpoints[from]; listed && !slices.Contains(node, to) {
		v.Egress = t.Permits(e.Egress, to, x.Protocol, x.Port)
		v.DryRunEgress = t.Permits(e.DryRunEgress, to, x.Protocol, x.Port)
	}
	if e, listed := t.Endpoints[to]; listed && !slices.Contains(node, from) {
		v.Ingress = t.Permits(e.Ingress, from, x.Protocol, x.Port)
		v.DryRunIngress = t.Permits(e.DryRunIngress, from, x.Protocol, x.Port)
	}
	return v
}

// Permits reports whether a rule set allows a peer. The port is that of the
// destination; for protocols without ports it is 0.
func (t Tables) Permits(set SetID, peer netip.Addr, protocol uint8, port uint16) bool {
	if set == NotIsolated {
		return true
	}
	s, listed := t.Sets[set]
	if !listed {
		return false
	}
	peer = peer.Unmap()
	if t.open(s.Any, protocol, port) {
		return true
	}
	if identity, known := t.Identities[peer]; known {
		if t.open(s.Pods, protocol, port) || t.open(t.Rules[Rule{set, identity}], protocol, port) {
			return true
		}
	}
	return t.open(t.Rules[Rule{set, t.group(peer)}], protocol, port)
}

// group returns that of the longest prefix that an address is in.
func (t Tables) group(addr netip.Addr) PeerID {
	for bits := addr.BitLen(); bits >= 0; bits-- {
		p, err := addr.Prefix(bits)
		if err != nil {
			return NoBlock
		}
		if group, listed := t.Blocks[p]; listed {
			return group
		}
	}
	return NoBlock
}

func (t Tables) open(ports PortsID, protocol uint8, port uint16) bool {
	if ports == AllPorts {
		return true
	}
	return slices.ContainsFunc(t.Ports[ports], func(p Ports) bool {
		return p.Protocol == protocol && p.First <= port && port <= p.Last
	})
}

// Apply applies changes to the tables.
func (t *Tables) Apply(ch Changes) {
	apply(&t.Identities, ch.Set.Identities, ch.Removed.Identities)
	apply(&t.Blocks, ch.Set.Blocks, ch.Removed.Blocks)
	apply(&t.Endpoints, ch.Set.Endpoints, ch.Removed.Endpoints)
	apply(&t.Sets, ch.Set.Sets, ch.Removed.Sets)
	apply(&t.Rules, ch.Set.Rules, ch.Removed.Rules)
	apply(&t.Ports, ch.Set.Ports, ch.Removed.Ports)
}

func apply[K comparable, V any](to *map[K]V, set map[K]V, removed []K) {
	if *to == nil {
		*to = map[K]V{}
	}
	for k, v := range set {
		(*to)[k] = v
	}
	for _, k := range removed {
		delete(*to, k)
	}
}

// Len counts the entries that are set and removed: the writes to the data
// path's maps that the changes cost.
func (ch Changes) Len() int {
	s, r := ch.Set, ch.Removed
	return len(s.Identities) + len(s.Blocks) + len(s.Endpoints) + len(s.Sets) + len(s.Rules) + len(s.Ports) +
		len(r.Identities) + len(r.Blocks) + len(r.Endpoints) + len(r.Sets) + len(r.Rules) + len(r.Ports)
}
