// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package service

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// web is a service with port http (TCP 80) that change makes another one.
func web(change func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec: corev1.ServiceSpec{
			ClusterIP: "10.96.0.1", ClusterIPs: []string{"10.96.0.1"}, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}},
		},
	}
	if change != nil {
		change(s)
	}
	return s
}

func unchanged(*corev1.Service) {}

// sliceOf makes a slice of web that has port http at 8080.
func sliceOf(name string, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: endpoints,
		Ports: []discoveryv1.EndpointPort{{Name: new("http"), Protocol: new(corev1.ProtocolTCP), Port: new(int32(8080))}},
	}
	if len(endpoints) > 0 && slices.Contains([]byte(endpoints[0].Addresses[0]), ':') {
		s.AddressType = discoveryv1.AddressTypeIPv6
	}
	return s
}

func altered(s *discoveryv1.EndpointSlice, change func(*discoveryv1.EndpointSlice)) *discoveryv1.EndpointSlice {
	change(s)
	return s
}

var plain = cmp.Options{
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmpopts.EquateEmpty(),
	cmp.Comparer(func(a, b Frontend) bool { return a == b }),
}

type mark func(*discoveryv1.Endpoint)

func at(address string, marks ...mark) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{address}}
	for _, m := range marks {
		m(&e)
	}
	return e
}

func on(node string) mark { return func(e *discoveryv1.Endpoint) { e.NodeName = &node } }

func unready(e *discoveryv1.Endpoint) {
	e.Conditions = discoveryv1.EndpointConditions{Ready: new(false), Serving: new(false)}
}

func draining(e *discoveryv1.Endpoint) {
	e.Conditions = discoveryv1.EndpointConditions{Ready: new(false), Serving: new(true), Terminating: new(true)}
}

func forZone(zone string) mark {
	return func(e *discoveryv1.Endpoint) {
		e.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: zone}}}
	}
}

func forNode(node, zone string) mark {
	return func(e *discoveryv1.Endpoint) {
		forZone(zone)(e)
		e.Hints.ForNodes = []discoveryv1.ForNode{{Name: node}}
	}
}

func local(s *corev1.Service) {
	s.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
}

func TestCompute(t *testing.T) {
	where := Topology{Node: "n1", Zone: "east"}
	for _, tc := range []struct {
		name    string
		service func(*corev1.Service)
		slices  []*discoveryv1.EndpointSlice
		want    []string // backends of 10.96.0.1:80/TCP; nil: no frontend
	}{
		{"nobody", unchanged, nil, nil},
		{"ready ones of all slices, in order", unchanged, []*discoveryv1.EndpointSlice{sliceOf("b", at("10.0.0.3"), at("10.0.0.1")), sliceOf("a", at("10.0.0.2"), at("10.0.0.9", unready))}, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}},
		{"draining only beside ready ones are left out", unchanged, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1"), at("10.0.0.2", draining))}, []string{"10.0.0.1"}},
		{"draining ones when none is ready", unchanged, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1", unready), at("10.0.0.2", draining))}, []string{"10.0.0.2"}},
		{"none is ready or drains", unchanged, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1", unready))}, nil},
		{"an address that a new pod has", unchanged, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1", draining)), sliceOf("b", at("10.0.0.1"))}, []string{"10.0.0.1"}},
		{"an address that an old pod had", unchanged, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1")), sliceOf("b", at("10.0.0.1", draining))}, []string{"10.0.0.1"}},

		{"local", local, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1", on("n1")), at("10.0.0.2", on("n2")), at("10.0.0.3"))}, []string{"10.0.0.1"}},
		{"local, none here", local, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.2", on("n2")))}, nil},
		{"local, draining here and ready elsewhere", local, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1", on("n1"), draining), at("10.0.0.2", on("n2")))}, []string{"10.0.0.1"}},
		{"local knows no zones", local, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1", on("n1"), forZone("west")), at("10.0.0.2", on("n2"), forZone("east")))}, []string{"10.0.0.1"}},

		{"zone", unchanged, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1", forZone("east")), at("10.0.0.2", forZone("west")))}, []string{"10.0.0.1"}},
		{"zone, one without hint", unchanged, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1", forZone("east")), at("10.0.0.2", forZone("west")), at("10.0.0.3"))}, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}},
		{"zone, none for ours", unchanged, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1", forZone("west")), at("10.0.0.2", forZone("north")))}, []string{"10.0.0.1", "10.0.0.2"}},
		{"zone, an unready one without hint", unchanged, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1", forZone("east")), at("10.0.0.2", forZone("west")), at("10.0.0.3", unready))}, []string{"10.0.0.1"}},
		{"zone, ours only draining", unchanged, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1", draining, forZone("east")), at("10.0.0.2", forZone("west")))}, []string{"10.0.0.2"}},
		{"node", unchanged, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1", forNode("n1", "east")), at("10.0.0.2", forNode("n2", "east")))}, []string{"10.0.0.1"}},
		{"node, none for ours: zone", unchanged, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1", forNode("n3", "west")), at("10.0.0.2", forNode("n2", "east")))}, []string{"10.0.0.2"}},
		{"node, one without hint: zone", unchanged, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1", forNode("n1", "west")), at("10.0.0.2", forZone("east")))}, []string{"10.0.0.2"}},

		{"headless", func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "None", []string{"None"} }, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1"))}, nil},
		{"no address yet", func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "", nil }, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1"))}, nil},
		{"another name", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1"))}, nil},
		{"another proxy's", func(s *corev1.Service) { s.Labels = map[string]string{proxyName: "x"} }, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1"))}, nil},
		{"only the old field", func(s *corev1.Service) { s.Spec.ClusterIPs = nil }, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1"))}, []string{"10.0.0.1"}},
		{"of no use", func(s *corev1.Service) { s.Spec.ClusterIPs = []string{"127.0.0.1"} }, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1"))}, nil},
		{"an unknown protocol", func(s *corev1.Service) { s.Spec.Ports[0].Protocol = "QUIC" }, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1"))}, nil},
		{"no protocol is TCP", func(s *corev1.Service) { s.Spec.Ports[0].Protocol = "" }, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1"))}, []string{"10.0.0.1"}},

		{"another service's slice", unchanged, []*discoveryv1.EndpointSlice{altered(sliceOf("a", at("10.0.0.1")), func(s *discoveryv1.EndpointSlice) { s.Labels[discoveryv1.LabelServiceName] = "db" })}, nil},
		{"another namespace's slice", unchanged, []*discoveryv1.EndpointSlice{altered(sliceOf("a", at("10.0.0.1")), func(s *discoveryv1.EndpointSlice) { s.Namespace = "x" })}, nil},
		{"a headless slice", unchanged, []*discoveryv1.EndpointSlice{altered(sliceOf("a", at("10.0.0.1")), func(s *discoveryv1.EndpointSlice) { s.Labels[corev1.IsHeadlessService] = "" })}, nil},
		{"another port", unchanged, []*discoveryv1.EndpointSlice{altered(sliceOf("a", at("10.0.0.1")), func(s *discoveryv1.EndpointSlice) { s.Ports[0].Name = new("https") })}, nil},
		{"another protocol", unchanged, []*discoveryv1.EndpointSlice{altered(sliceOf("a", at("10.0.0.1")), func(s *discoveryv1.EndpointSlice) { s.Ports[0].Protocol = new(corev1.ProtocolUDP) })}, nil},
		{"every port", unchanged, []*discoveryv1.EndpointSlice{altered(sliceOf("a", at("10.0.0.1")), func(s *discoveryv1.EndpointSlice) { s.Ports[0].Port = nil })}, nil},
		{"a port too large", unchanged, []*discoveryv1.EndpointSlice{altered(sliceOf("a", at("10.0.0.1")), func(s *discoveryv1.EndpointSlice) { s.Ports[0].Port = new(int32(65536 + 80)) })}, nil},
		{"nonsense between", unchanged, []*discoveryv1.EndpointSlice{sliceOf("a", at("10.0.0.1"), at("nonsense"), at("fd00::1"), at("127.0.0.1"), at("0.0.0.0"), at("169.254.169.254"), discoveryv1.Endpoint{})}, []string{"10.0.0.1"}},
		{"mapped", unchanged, []*discoveryv1.EndpointSlice{sliceOf("a", at("::ffff:10.0.0.1"))}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var want map[Frontend]Service
			if tc.want != nil {
				s := Service{}
				for _, a := range tc.want {
					s.Backends = append(s.Backends, netip.AddrPortFrom(netip.MustParseAddr(a), 8080))
				}
				want = map[Frontend]Service{{netip.MustParseAddrPort("10.96.0.1:80"), 6}: s}
			}
			if diff := cmp.Diff(want, Compute(where, web(tc.service), tc.slices), plain); diff != "" {
				t.Errorf("services (-want +got):\n%s", diff)
			}
		})
	}
}

func TestComputeOfBothFamiliesAndManyPorts(t *testing.T) {
	s := web(func(s *corev1.Service) {
		s.Spec.ClusterIPs, s.Spec.IPFamilies = []string{"10.96.0.1", "fd00:96::1"}, []corev1.IPFamily{"IPv4", "IPv6"}
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP})
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(60))}}
	})
	four := altered(sliceOf("a", at("10.0.0.1")), func(e *discoveryv1.EndpointSlice) {
		e.Ports = append(e.Ports, discoveryv1.EndpointPort{Name: new("dns"), Protocol: new(corev1.ProtocolUDP), Port: new(int32(5353))})
	})
	got := Compute(Topology{}, s, []*discoveryv1.EndpointSlice{four, sliceOf("b", at("fd00::1"))})
	one := func(backend string) Service {
		return Service{Backends: []netip.AddrPort{netip.MustParseAddrPort(backend)}, Affinity: time.Minute}
	}
	want := map[Frontend]Service{
		{netip.MustParseAddrPort("10.96.0.1:80"), 6}:    one("10.0.0.1:8080"),
		{netip.MustParseAddrPort("10.96.0.1:53"), 17}:   one("10.0.0.1:5353"),
		{netip.MustParseAddrPort("[fd00:96::1]:80"), 6}: one("[fd00::1]:8080"),
	}
	if diff := cmp.Diff(want, got, plain); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
	s.Spec.SessionAffinityConfig = nil
	for at, service := range Compute(Topology{}, s, []*discoveryv1.EndpointSlice{four}) {
		if service.Affinity != 3*time.Hour {
			t.Errorf("%v without a timeout keeps backends for %v, want 3h", at, service.Affinity)
		}
	}
}

// FuzzCompute gives services and slices that no API server let in.
func FuzzCompute(f *testing.F) {
	seed := func(s *corev1.Service, e *discoveryv1.EndpointSlice) {
		service, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		slice, err := json.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(service, slice)
	}
	seed(web(unchanged), sliceOf("a", at("10.0.0.1", on("n1"), forNode("n1", "east")), at("10.0.0.2", draining)))
	seed(web(local), sliceOf("a", at("fd00::1%eth0"), discoveryv1.Endpoint{}))
	f.Fuzz(func(t *testing.T, service, slice []byte) {
		var s corev1.Service
		var e discoveryv1.EndpointSlice
		if json.Unmarshal(service, &s) != nil || json.Unmarshal(slice, &e) != nil {
			return
		}
		of := []*discoveryv1.EndpointSlice{&e}
		for at, service := range Compute(Topology{"n1", "east"}, &s, of) {
			if len(service.Backends) == 0 || !slices.IsSortedFunc(service.Backends, netip.AddrPort.Compare) || service.Affinity < 0 {
				t.Errorf("%v leads to %+v", at, service)
			}
			for _, b := range service.Backends {
				if !usable(b.Addr()) || b.Addr().Is4() != at.Address.Addr().Is4() || b.Port() == 0 {
					t.Errorf("%v leads to %v", at, b)
				}
			}
		}
	})
}
