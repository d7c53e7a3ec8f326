// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/overlay/service"
)

// setService shows a service with port 80 and one slice; endpoints are written
// as address or address@zone.
func (f *fakeAPI) setService(name, clusterIP string, endpoints ...string) {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: new(""), Port: new(int32(8080))}},
	}
	for _, text := range endpoints {
		address, zone := text, ""
		for i := range text {
			if text[i] == '@' {
				address, zone = text[:i], text[i+1:]
			}
		}
		e := discoveryv1.Endpoint{Addresses: []string{address}}
		if zone != "" {
			e.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: zone}}}
		}
		slice.Endpoints = append(slice.Endpoints, e)
	}
	f.change(func() {
		f.services[podName{"shop", name}] = &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
			Spec:       corev1.ServiceSpec{ClusterIP: clusterIP, Ports: []corev1.ServicePort{{Port: 80}}},
		}
		f.slices[podName{"shop", name}] = []*discoveryv1.EndpointSlice{slice}
	}, serviceRef(name))
}

func (f *fakeAPI) deleteService(name string) {
	f.change(func() { delete(f.services, podName{"shop", name}) }, serviceRef(name))
}

// wantServices compares the data path's services: frontend address to backends.
func (r *rig) wantServices(want map[string][]string) {
	r.t.Helper()
	synctest.Wait()
	r.dp.mu.Lock()
	defer r.dp.mu.Unlock()
	got := map[string][]string{}
	backends := 0
	for f, s := range r.dp.services {
		for _, b := range s.Backends {
			got[f.Address.Addr().String()] = append(got[f.Address.Addr().String()], b.Addr().String())
			backends++
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Errorf("services (-want +got):\n%s", diff)
	}
	if s := r.Status(); s.Problem == "" && (s.Frontends != len(want) || s.Backends != backends) {
		r.t.Errorf("status: %+v", s)
	}
}

func TestServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.dp.services[service.Frontend{Address: netip.MustParseAddrPort("10.96.0.9:80"), Protocol: 6}] = service.Service{} // of an earlier daemon
		r.api.setService("web", "10.96.0.1", "10.244.1.5", "10.244.2.7")
		r.api.setService("idle", "10.96.0.2")
		r.run()
		r.wantServices(map[string][]string{"10.96.0.1": {"10.244.1.5", "10.244.2.7"}})

		r.api.setService("web", "10.96.0.1", "10.244.2.7")
		r.api.setService("idle", "10.96.0.2", "10.244.1.6")
		r.wantServices(map[string][]string{"10.96.0.1": {"10.244.2.7"}, "10.96.0.2": {"10.244.1.6"}})

		r.api.deleteService("web")
		r.wantServices(map[string][]string{"10.96.0.2": {"10.244.1.6"}})
	})
}

func TestServicesFollowTheZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.api.setService("web", "10.96.0.1", "10.244.1.5@east", "10.244.2.7@west")
		r.run()
		r.wantServices(map[string][]string{"10.96.0.1": {"10.244.1.5", "10.244.2.7"}})
		r.api.change(func() { r.api.zone = "west" }, kube.Ref{Kind: kube.KindNode, Name: "n1"})
		r.wantServices(map[string][]string{"10.96.0.1": {"10.244.2.7"}})
	})
}

func TestAddressGoesFromServiceToService(t *testing.T) {
	for range 20 { // the fake names what changed in any order
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, nil)
			r.api.setService("old", "10.96.0.1", "10.244.1.5")
			r.run()
			r.api.change(func() { delete(r.api.services, podName{"shop", "old"}) }, serviceRef("old"))
			r.api.setService("new", "10.96.0.1", "10.244.2.7")
			r.wantServices(map[string][]string{"10.96.0.1": {"10.244.2.7"}})
			r.api.deleteService("new")
			r.wantServices(map[string][]string{})
		})
	}
}

func TestServicesAreMadeUpFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.dp.mu.Lock()
		r.dp.failServ = errors.New("full")
		r.dp.mu.Unlock()
		r.api.setService("web", "10.96.0.1", "10.244.1.5")
		r.wantServices(map[string][]string{})
		r.api.setPod(pod("web", "u1", "n1"))
		wantDone(t, r.attaching(t.Context(), ref("web", "u1"), addrA)) // kube-proxy serves what is missing
		r.dp.mu.Lock()
		r.dp.failServ = nil
		r.dp.mu.Unlock()
		time.Sleep(time.Second)
		r.wantServices(map[string][]string{"10.96.0.1": {"10.244.1.5"}})
		if r.dp.syncs != 1 {
			t.Errorf("policies, which lacked nothing, were written as a whole %d times", r.dp.syncs)
		}
	})
}
