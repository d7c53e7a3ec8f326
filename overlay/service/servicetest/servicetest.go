// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package servicetest makes random services, for tests that compare the choice
// of backends with another form of it.
package servicetest

import (
	"fmt"
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/overlay/service"
)

// World makes random services as the API server would let them in: few names,
// nodes, zones and addresses, so that they meet.
type World struct{ *rand.Rand }

// New returns the world of a number: the same number, the same world.
func New(number uint64) World { return World{rand.New(rand.NewPCG(number, 4))} }

func pick[T any](w World, from ...T) T { return from[w.IntN(len(from))] }

// Place is where the clients are.
func (w World) Place() service.Topology {
	return service.Topology{Node: pick(w, "n1", "n2", "n3"), Zone: pick(w, "", "a", "b", "c")}
}

// Service makes shop/web.
func (w World) Service() *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
	families := pick(w, []string{"10.96.0.1"}, []string{"fd00:96::1"}, []string{"10.96.0.1", "fd00:96::1"}, []string{"fd00:96::1", "10.96.0.1"}, []string{"None"})
	s.Spec.ClusterIP, s.Spec.ClusterIPs = families[0], families
	for _, a := range families {
		family := corev1.IPv4Protocol
		if a[0] == 'f' {
			family = corev1.IPv6Protocol
		}
		s.Spec.IPFamilies = append(s.Spec.IPFamilies, family)
	}
	s.Spec.Type = pick(w, corev1.ServiceTypeClusterIP, corev1.ServiceTypeClusterIP, corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeExternalName)
	if w.IntN(3) == 0 {
		s.Spec.InternalTrafficPolicy = new(pick(w, corev1.ServiceInternalTrafficPolicyLocal, corev1.ServiceInternalTrafficPolicyCluster))
	}
	if w.IntN(3) == 0 {
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(1 + w.IntN(100)))}}
	}
	for i, name := range []string{"http", "dns", ""}[:2+w.IntN(2)] {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: name, Port: int32(80 + i), Protocol: w.protocol()})
	}
	return s
}

func (w World) protocol() corev1.Protocol {
	return pick(w, corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
}

// Slices makes slices of shop/web, by name.
func (w World) Slices() []*discoveryv1.EndpointSlice {
	var out []*discoveryv1.EndpointSlice
	moment := w.IntN(4) // whether hints are given by now, and whether slices have more than one state of an endpoint
	for i := range w.IntN(5) {
		s := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("web-%d", i), Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
			AddressType: pick(w, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN),
		}
		for range 2 + w.IntN(2) {
			s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: new(pick(w, "http", "dns", "")), Protocol: new(w.protocol()), Port: new(int32(8080 + w.IntN(2)))})
		}
		if w.IntN(8) == 0 {
			s.Ports[0].Port = nil
		}
		for range w.IntN(6) {
			s.Endpoints = append(s.Endpoints, w.endpoint(s.AddressType, 10*i+w.IntN(9), moment))
		}
		out = append(out, s)
	}
	return out
}

func (w World) endpoint(family discoveryv1.AddressType, number, moment int) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.244.0.%d", number+1)}}
	switch family {
	case discoveryv1.AddressTypeIPv6:
		e.Addresses[0] = fmt.Sprintf("fd00:244::%d", number+1)
	case discoveryv1.AddressTypeFQDN:
		e.Addresses[0] = "web.example"
	}
	for _, c := range []**bool{&e.Conditions.Ready, &e.Conditions.Serving, &e.Conditions.Terminating} {
		*c = pick(w, nil, new(true), new(false), *c)
	}
	if w.IntN(5) > 0 {
		e.NodeName = new(pick(w, "n1", "n2", "n3"))
	}
	if moment == 0 || w.IntN(6) == 0 {
		return e
	}
	e.Hints = &discoveryv1.EndpointHints{}
	if w.IntN(5) > 0 {
		e.Hints.ForZones = append(e.Hints.ForZones, discoveryv1.ForZone{Name: pick(w, "a", "b")}, discoveryv1.ForZone{Name: pick(w, "a", "b", "c")})
	}
	if moment == 1 && w.IntN(8) > 0 {
		e.Hints.ForNodes = append(e.Hints.ForNodes, discoveryv1.ForNode{Name: pick(w, "n1", "n2")})
	}
	return e
}
