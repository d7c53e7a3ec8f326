// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/cni/cnitest"
)

func TestNewResultIsWhatPortmapNeeds(t *testing.T) {
	r := cnitest.Result(cni.Attachment{IfName: "eth0", Netns: "/run/netns/1"}, 1)
	want := addrs("10.244.1.2", "fd00:0:0:1::2")
	if diff := cmp.Diff(want, cni.Addresses(r), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	for i, ip := range r.IPs {
		// The portmap plugin uses the addresses of the device in a sandbox whose name is
		// CNI_IFNAME.
		if device := r.Interfaces[*ip.Interface]; device.Name != "eth0" || device.Sandbox != "/run/netns/1" {
			t.Errorf("address %v is on %+v", ip.Address, device)
		}
		if ones, bits := ip.Address.Mask.Size(); ones != bits || bits != want[i].BitLen() {
			t.Errorf("address %v is no host address", ip.Address)
		}
		if r.Routes[i].GW.Equal(net.IPv4zero) || !r.Routes[i].GW.Equal(ip.Gateway) || !r.Routes[i].Dst.IP.IsUnspecified() {
			t.Errorf("route %v, gateway %v", r.Routes[i], ip.Gateway)
		}
	}
	if cni.Addresses(nil) != nil {
		t.Error("no result has addresses")
	}
}

func TestPodMTU(t *testing.T) {
	a := cni.Attachment{IfName: "eth0", Netns: "/run/netns/1"}
	if mtu := cni.PodMTU(a); mtu != 0 {
		t.Errorf("no result has MTU %d", mtu)
	}
	a.Prev = cni.NewResult(a, cni.Device{Name: "eth0", MTU: 1500}, cni.Device{Name: "eth0", MTU: 1420}, nil)
	if mtu := cni.PodMTU(a); mtu != 1420 {
		t.Errorf("MTU %d, want that of the pod's end, 1420", mtu)
	}
	a.IfName = "net1"
	if mtu := cni.PodMTU(a); mtu != 0 {
		t.Errorf("a device that is not in the result has MTU %d", mtu)
	}
}

func addrs(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}
