// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kubeproxy

import (
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/kubernetes/pkg/proxy"

	"github.com/sealane/sealane/overlay/service"
	"github.com/sealane/sealane/overlay/service/servicetest"
)

// kubeProxy is what kube-proxy would do: its trackers turn objects into ports
// and endpoints, and CategorizeEndpoints chooses.
func kubeProxy(where service.Topology, s *corev1.Service, of []*discoveryv1.EndpointSlice) map[service.Frontend]service.Service {
	out := map[service.Frontend]service.Service{}
	for _, family := range []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol} {
		ports, endpoints := tracked(family, where.Node, s, of)
		for name, port := range ports {
			chosen, local, _, _ := proxy.CategorizeEndpoints(endpoints[name], port, where.Node, map[string]string{corev1.LabelTopologyZone: where.Zone})
			if port.InternalPolicyLocal() {
				chosen = local
			}
			if len(chosen) > 0 {
				out[frontendOf(port)] = serviceOf(port, chosen)
			}
		}
	}
	return out
}

func tracked(family corev1.IPFamily, node string, s *corev1.Service, of []*discoveryv1.EndpointSlice) (proxy.ServicePortMap, proxy.EndpointsMap) {
	services := proxy.NewServiceChangeTracker(family, nil, nil)
	services.Update(nil, s)
	ports := proxy.ServicePortMap{}
	ports.Update(services)
	slices := proxy.NewEndpointsChangeTracker(family, node, nil, nil)
	for _, e := range of {
		slices.EndpointSliceUpdate(e, false)
	}
	endpoints := proxy.EndpointsMap{}
	endpoints.Update(slices)
	return ports, endpoints
}

func frontendOf(p proxy.ServicePort) service.Frontend {
	address := netip.MustParseAddr(p.ClusterIP().String())
	return service.Frontend{
		Address:  netip.AddrPortFrom(address, uint16(p.Port())),
		Protocol: map[corev1.Protocol]uint8{corev1.ProtocolTCP: 6, corev1.ProtocolUDP: 17, corev1.ProtocolSCTP: 132}[p.Protocol()],
	}
}

func serviceOf(p proxy.ServicePort, chosen []proxy.Endpoint) service.Service {
	var s service.Service
	for _, e := range chosen {
		s.Backends = append(s.Backends, netip.MustParseAddrPort(e.String()))
	}
	slices.SortFunc(s.Backends, netip.AddrPort.Compare)
	if p.SessionAffinityType() == corev1.ServiceAffinityClientIP {
		s.Affinity = time.Duration(p.StickyMaxAgeSeconds()) * time.Second
	}
	return s
}

func TestChoiceIsKubeProxys(t *testing.T) {
	const worlds = 20_000
	backends := 0
	for seed := range uint64(worlds) {
		w := servicetest.New(seed)
		where, s, of := w.Place(), w.Service(), w.Slices()
		want, got := kubeProxy(where, s, of), service.Compute(where, s, of)
		if !maps.EqualFunc(want, got, same) {
			t.Fatalf("seed %d, at %+v: kube-proxy has %v, we have %v\nservice %v\nslices %v", seed, where, want, got, s, of)
		}
		for _, g := range got {
			backends += len(g.Backends)
		}
	}
	if backends < worlds/2 {
		t.Errorf("only %d backends in %d worlds", backends, worlds)
	}
}

func same(a, b service.Service) bool {
	return slices.Equal(a.Backends, b.Backends) && a.Affinity == b.Affinity
}
