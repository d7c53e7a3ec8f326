// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package service

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sealane/sealane/internal/canonical"
	"github.com/sealane/sealane/internal/ipproto"
)

// proxyName marks services and slices that another proxy than the cluster's serves.
const proxyName = "service.kubernetes.io/service-proxy-name"

// Topology is where the clients of services are.
type Topology struct {
	Node string
	Zone string // of the Node object's label topology.kubernetes.io/zone; empty if it has none
}

// Compute returns who answers at the cluster addresses of a Service for clients
// at a place: precisely those that kube-proxy of Kubernetes 1.36 would choose
// from there. A port that nobody answers is not listed. Slices that are not of
// this service are passed over, and so is what the API server would not have
// let in.
func Compute(where Topology, s *corev1.Service, of []*discoveryv1.EndpointSlice) map[Frontend]Service {
	if !proxied(s) {
		return nil
	}
	out := map[Frontend]Service{}
	for _, address := range clusterAddresses(s) {
		for _, port := range s.Spec.Ports {
			protocol, known := number(port.Protocol)
			if !known || !validPort(port.Port) {
				continue
			}
			backends := backendsOf(where.choose(endpoints(s, of, want{port.Name, protocol, address.Is6()}), s))
			if len(backends) == 0 {
				continue
			}
			at := Frontend{Address: netip.AddrPortFrom(address, uint16(port.Port)), Protocol: protocol}
			out[at] = Service{Backends: backends, Affinity: affinity(s)}
		}
	}
	return out
}

// proxied reports whether the cluster's proxy serves the service at all.
func proxied(s *corev1.Service) bool {
	_, foreign := s.Labels[proxyName]
	return !foreign && s.Spec.Type != corev1.ServiceTypeExternalName &&
		s.Spec.ClusterIP != "" && s.Spec.ClusterIP != corev1.ClusterIPNone
}

// clusterAddresses returns the addresses of the service, one of each family.
func clusterAddresses(s *corev1.Service) []netip.Addr {
	texts := s.Spec.ClusterIPs
	if len(texts) == 0 {
		texts = []string{s.Spec.ClusterIP}
	}
	var out []netip.Addr
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		if err == nil && usable(a) && !slices.ContainsFunc(out, func(b netip.Addr) bool { return a.Is6() == b.Is6() }) {
			out = append(out, a)
		}
	}
	return out
}

// affinity returns how long a client keeps its backend. The API server fills in
// the time; without it counts what it fills in.
func affinity(s *corev1.Service) time.Duration {
	if s.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	seconds := corev1.DefaultClientIPServiceAffinitySeconds
	if c := s.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		seconds = *c.ClientIP.TimeoutSeconds
	}
	return time.Duration(max(1, seconds)) * time.Second
}

// number returns the number of a protocol; no name means TCP.
func number(p corev1.Protocol) (protocol uint8, known bool) {
	return ipproto.Number(cmp.Or(p, corev1.ProtocolTCP))
}

func validPort(p int32) bool { return p > 0 && p < 1<<16 }

// usable reports whether an address can be a service's or a backend's. The others
// mean something else on each node, or no node at all; the API server refuses
// them, and whoever gets past it shall not reach a node's own loopback.
func usable(a netip.Addr) bool {
	return canonical.Address(a) && !a.IsUnspecified() && !a.IsLoopback() &&
		!a.IsMulticast() && !a.IsLinkLocalUnicast()
}
