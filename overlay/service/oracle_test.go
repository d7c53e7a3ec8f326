// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package service_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sealane/sealane/overlay/service"
	"github.com/sealane/sealane/overlay/service/servicetest"
)

// oracle is Compute said again, in the order of the API's text and with loops
// over everything: each endpoint is a row, and each rule strikes out rows.
func oracle(where service.Topology, s *corev1.Service, of []*discoveryv1.EndpointSlice) map[service.Frontend]service.Service {
	out := map[service.Frontend]service.Service{}
	if s.Spec.Type == corev1.ServiceTypeExternalName || s.Spec.ClusterIP == "None" {
		return out
	}
	for _, ip := range s.Spec.ClusterIPs {
		for _, p := range s.Spec.Ports {
			rows := strike(where, s, rowsOf(of, p, strings.Contains(ip, ":")))
			if len(rows) == 0 {
				continue
			}
			var affinity time.Duration
			if s.Spec.SessionAffinity == "ClientIP" {
				affinity = time.Duration(*s.Spec.SessionAffinityConfig.ClientIP.TimeoutSeconds) * time.Second
			}
			var backends []netip.AddrPort
			for _, r := range rows {
				backends = append(backends, r.at)
			}
			slices.SortFunc(backends, netip.AddrPort.Compare)
			at := netip.AddrPortFrom(netip.MustParseAddr(ip), uint16(p.Port))
			out[service.Frontend{at, map[corev1.Protocol]uint8{"TCP": 6, "UDP": 17, "SCTP": 132}[p.Protocol]}] = service.Service{backends, affinity}
		}
	}
	return out
}

type row struct {
	at netip.AddrPort
	e  discoveryv1.Endpoint
}

func is(b *bool, otherwise bool) bool {
	if b == nil {
		return otherwise
	}
	return *b
}

func rowsOf(of []*discoveryv1.EndpointSlice, p corev1.ServicePort, six bool) []row {
	var rows []row
	for _, slice := range of { // the generator gives slices by name
		if slice.AddressType == "FQDN" || (slice.AddressType == "IPv6") != six {
			continue
		}
		for _, sp := range slice.Ports {
			if *sp.Name != p.Name || *sp.Protocol != p.Protocol || sp.Port == nil {
				continue
			}
			for _, e := range slice.Endpoints {
				r := row{netip.AddrPortFrom(netip.MustParseAddr(e.Addresses[0]), uint16(*sp.Port)), e}
				i := slices.IndexFunc(rows, func(o row) bool { return o.at == r.at })
				switch {
				case i < 0:
					rows = append(rows, r)
				case !is(e.Conditions.Terminating, false):
					rows[i] = r
				}
			}
		}
	}
	return rows
}

func strike(where service.Topology, s *corev1.Service, rows []row) []row {
	keep := func(rows []row, when func(row) bool) []row {
		return slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return !when(r) })
	}
	all := func(rows []row, when func(row) bool) bool { return len(keep(rows, when)) == len(rows) }
	isLocal := s.Spec.InternalTrafficPolicy != nil && *s.Spec.InternalTrafficPolicy == "Local"
	if isLocal {
		rows = keep(rows, func(r row) bool { return r.e.NodeName != nil && *r.e.NodeName == where.Node })
	}
	ready := keep(rows, func(r row) bool { return is(r.e.Conditions.Ready, true) })
	if len(ready) == 0 {
		return keep(rows, func(r row) bool { return is(r.e.Conditions.Serving, true) && is(r.e.Conditions.Terminating, false) })
	}
	if isLocal {
		return ready
	}
	forNode := func(r row) bool {
		return r.e.Hints != nil && slices.Contains(r.e.Hints.ForNodes, discoveryv1.ForNode{Name: where.Node})
	}
	forZone := func(r row) bool {
		return r.e.Hints != nil && slices.Contains(r.e.Hints.ForZones, discoveryv1.ForZone{Name: where.Zone})
	}
	if all(ready, func(r row) bool { return r.e.Hints != nil && r.e.Hints.ForNodes != nil }) && len(keep(ready, forNode)) > 0 {
		return keep(ready, forNode)
	}
	if all(ready, func(r row) bool { return r.e.Hints != nil && r.e.Hints.ForZones != nil }) && len(keep(ready, forZone)) > 0 {
		return keep(ready, forZone)
	}
	return ready
}

var plain = cmp.Options{
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmpopts.EquateEmpty(),
	cmp.Comparer(func(a, b service.Frontend) bool { return a == b }),
}

func TestComputeAgreesWithTheOracle(t *testing.T) {
	const worlds = 20_000
	frontends := 0
	for seed := range uint64(worlds) {
		w := servicetest.New(seed)
		where, s, of := w.Place(), w.Service(), w.Slices()
		want, got := oracle(where, s, of), service.Compute(where, s, of)
		if diff := cmp.Diff(want, got, plain); diff != "" {
			t.Fatalf("seed %d, at %+v (-oracle +computed):\n%s\nservice %v\nslices %v", seed, where, diff, s, of)
		}
		slices.Reverse(of)
		if again := service.Compute(where, s, of); !cmp.Equal(got, again, plain) {
			t.Fatalf("seed %d: the order of slices matters: %v, then %v", seed, got, again)
		}
		frontends += len(got)
	}
	if frontends < worlds/4 {
		t.Errorf("only %d frontends in %d worlds: the generator makes too little", frontends, worlds)
	}
}
