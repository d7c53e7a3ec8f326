// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package service

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// endpoint is what the choice depends on. Ready excludes terminating, unless
// the service publishes its endpoints whether or not they are ready; serving
// includes it.
type endpoint struct {
	ready, serving, terminating bool
	node                        string
	hints                       *discoveryv1.EndpointHints
}

// draining reports whether the endpoint ends but answers still.
func (e endpoint) draining() bool { return e.serving && e.terminating }

// want says which endpoints of slices are asked for.
type want struct {
	port     string // name of the service's port
	protocol uint8
	six      bool
}

// endpoints collects what slices say of a service's port. Slices can overlap
// while an endpoint moves between them, and when an address was given to a new
// pod before the old one's object went: then one that does not end counts.
func endpoints(s *corev1.Service, of []*discoveryv1.EndpointSlice, w want) map[netip.AddrPort]endpoint {
	out := map[netip.AddrPort]endpoint{}
	byName := func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) }
	for _, slice := range slices.SortedFunc(slices.Values(of), byName) {
		if !w.lists(s, slice) {
			continue
		}
		for _, port := range slice.Ports {
			if w.means(port) {
				addEndpoints(out, slice, uint16(*port.Port))
			}
		}
	}
	return out
}

// lists reports whether the slice is of the service, and of the family.
func (w want) lists(s *corev1.Service, slice *discoveryv1.EndpointSlice) bool {
	if _, headless := slice.Labels[corev1.IsHeadlessService]; headless {
		return false
	}
	family := discoveryv1.AddressTypeIPv4
	if w.six {
		family = discoveryv1.AddressTypeIPv6
	}
	return slice.AddressType == family && slice.Namespace == s.Namespace && slice.Labels[discoveryv1.LabelServiceName] == s.Name
}

// means reports whether the slice's port is the service's. The API server gives
// a name and a protocol to those without; a port without number means all, and
// no service has that.
func (w want) means(p discoveryv1.EndpointPort) bool {
	var name string
	var protocol corev1.Protocol
	if p.Name != nil {
		name = *p.Name
	}
	if p.Protocol != nil {
		protocol = *p.Protocol
	}
	n, known := number(protocol)
	return known && n == w.protocol && name == w.port && p.Port != nil && validPort(*p.Port)
}

func addEndpoints(out map[netip.AddrPort]endpoint, slice *discoveryv1.EndpointSlice, port uint16) {
	for _, e := range slice.Endpoints {
		if len(e.Addresses) == 0 {
			continue
		}
		// All addresses of an endpoint are the same; only the first counts.
		a, err := netip.ParseAddr(e.Addresses[0])
		if err != nil || !usable(a) || a.Is4() != (slice.AddressType == discoveryv1.AddressTypeIPv4) {
			continue
		}
		terminating := e.Conditions.Terminating != nil && *e.Conditions.Terminating
		at := netip.AddrPortFrom(a, port)
		if _, known := out[at]; known && terminating {
			continue
		}
		made := endpoint{ready: unlessFalse(e.Conditions.Ready), serving: unlessFalse(e.Conditions.Serving), terminating: terminating, hints: e.Hints}
		if e.NodeName != nil {
			made.node = *e.NodeName
		}
		out[at] = made
	}
}

// unlessFalse reads a condition that holds where nobody says otherwise.
func unlessFalse(condition *bool) bool { return condition == nil || *condition }

// choose picks the endpoints for new flows: the ready ones, near ones if hints
// say so, and if there are none those that drain.
func (where Topology) choose(all map[netip.AddrPort]endpoint, s *corev1.Service) map[netip.AddrPort]endpoint {
	local := s.Spec.InternalTrafficPolicy != nil && *s.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
	if local {
		all = filter(all, func(e endpoint) bool { return e.node == where.Node && e.node != "" })
	}
	ready := filter(all, func(e endpoint) bool { return e.ready })
	switch {
	case len(ready) == 0:
		return filter(all, endpoint.draining)
	case local:
		return ready
	}
	return where.near(ready)
}

// near follows the hints for nodes, or else for zones, if every endpoint has
// one and one of them means this place. Hints that leave some endpoint out, or
// this place, are out of date, and none is followed.
func (where Topology) near(ready map[netip.AddrPort]endpoint) map[netip.AddrPort]endpoint {
	for _, hint := range []func(endpoint) (given, here bool){where.node, where.zone} {
		allGiven := true
		chosen := filter(ready, func(e endpoint) bool {
			given, here := hint(e)
			allGiven = allGiven && given
			return here
		})
		if allGiven && len(chosen) > 0 {
			return chosen
		}
	}
	return ready
}

func (where Topology) node(e endpoint) (given, here bool) {
	if e.hints == nil {
		return false, false
	}
	return len(e.hints.ForNodes) > 0, slices.ContainsFunc(e.hints.ForNodes, func(n discoveryv1.ForNode) bool { return n.Name == where.Node })
}

func (where Topology) zone(e endpoint) (given, here bool) {
	if e.hints == nil {
		return false, false
	}
	return len(e.hints.ForZones) > 0, slices.ContainsFunc(e.hints.ForZones, func(z discoveryv1.ForZone) bool { return z.Name == where.Zone })
}

func filter(all map[netip.AddrPort]endpoint, keep func(endpoint) bool) map[netip.AddrPort]endpoint {
	out := map[netip.AddrPort]endpoint{}
	for at, e := range all {
		if keep(e) {
			out[at] = e
		}
	}
	return out
}

func backendsOf(chosen map[netip.AddrPort]endpoint) []netip.AddrPort {
	return slices.SortedFunc(maps.Keys(chosen), netip.AddrPort.Compare)
}
