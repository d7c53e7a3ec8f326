// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package podnet

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/cni/ipam"
	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/internal/nl"
)

func spec(pod *nettest.NS, addresses ...string) Spec {
	o := ipam.Owner{ContainerID: pod.Name, IfName: "eth0"}
	s := Spec{Owner: o, Netns: pod.Path, IfName: o.IfName, HostIfName: HostName(o), MTU: 1420}
	for _, a := range addresses {
		s.Addresses = append(s.Addresses, netip.MustParseAddr(a))
	}
	return s
}

func TestPrivilegedConnect(t *testing.T) {
	nettest.Privileged(t)
	for name, addresses := range map[string][]string{
		"IPv4": {"10.9.0.2"}, "IPv6": {"fd00:9::2"}, "dual": {"10.9.0.2", "fd00:9::2"},
	} {
		t.Run(name, func(t *testing.T) {
			host, pod := nettest.NewNS(t), nettest.NewNS(t)
			host.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
			host.Run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
			host.Run("ip", "addr", "add", "2001:db8::1/128", "dev", "lo")
			s := spec(pod, addresses...)
			first, err := Connect(host.Handle(), s)
			if err != nil {
				t.Fatal(err)
			}
			if err := Check(host.Handle(), s); err != nil {
				t.Error(err)
			}
			for _, a := range s.Addresses {
				node := "192.0.2.1"
				if a.Is6() {
					node = "2001:db8::1"
				}
				pod.Run("ping", "-c1", "-W3", node)
				host.Run("ping", "-c1", "-W3", a.String())
			}
			again, err := Connect(host.Handle(), s)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(first, again); diff != "" {
				t.Errorf("a retry made something else (-first +again):\n%s", diff)
			}
			for range 2 { // what is gone is no error
				if err := Disconnect(host.Handle(), s.HostIfName); err != nil {
					t.Fatal(err)
				}
			}
			if routes, err := host.Handle().Routes(nl.RouteFilter{Protocol: RouteProtocol}); err != nil || len(routes) != 0 {
				t.Errorf("routes left: %v, %v", routes, err)
			}
		})
	}
}

func TestPrivilegedConnectReplacesWhatIsHalfMade(t *testing.T) {
	nettest.Privileged(t)
	for name, spoil := range map[string]func(host, pod *nettest.NS, s Spec){
		"device down":      func(_, pod *nettest.NS, s Spec) { pod.Run("ip", "link", "set", s.IfName, "down") },
		"no address":       func(_, pod *nettest.NS, s Spec) { pod.Run("ip", "addr", "flush", "dev", s.IfName) },
		"no route":         func(_, pod *nettest.NS, s Spec) { pod.Run("ip", "route", "del", "default") },
		"no route outside": func(host, _ *nettest.NS, s Spec) { host.Run("ip", "route", "del", "10.9.0.2/32") },
		"no neighbour":     func(_, pod *nettest.NS, s Spec) { pod.Run("ip", "neigh", "flush", "nud", "permanent", "dev", s.IfName) },
		"other MTU":        func(_, pod *nettest.NS, s Spec) { pod.Run("ip", "link", "set", s.IfName, "mtu", "1300") },
		"somebody's device": func(host, _ *nettest.NS, s Spec) {
			host.Run("ip", "link", "del", s.HostIfName)
			host.Run("ip", "link", "add", s.HostIfName, "type", "bridge")
		},
	} {
		t.Run(name, func(t *testing.T) {
			host, pod := nettest.NewNS(t), nettest.NewNS(t)
			s := spec(pod, "10.9.0.2")
			if _, err := Connect(host.Handle(), s); err != nil {
				t.Fatal(err)
			}
			spoil(host, pod, s)
			if err := Check(host.Handle(), s); !errors.Is(err, ErrDiffers) {
				t.Errorf("Check says %v", err)
			}
			if _, err := Connect(host.Handle(), s); err != nil {
				t.Fatal(err)
			}
			if err := Check(host.Handle(), s); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPrivilegedFailedConnectLeavesNothing(t *testing.T) {
	nettest.Privileged(t)
	host, pod := nettest.NewNS(t), nettest.NewNS(t)
	s := spec(pod, "10.9.0.2")
	s.MTU = 100000 // more than a veth takes
	if _, err := Connect(host.Handle(), s); err == nil {
		t.Fatal("no error")
	}
	s.MTU, s.Netns = 1420, "/var/run/netns/sealane-none"
	if _, err := Connect(host.Handle(), s); !errors.Is(err, nl.ErrNotFound) {
		t.Errorf("a namespace that is not there: %v", err)
	}
	if _, err := host.Handle().LinkByName(s.HostIfName); !errors.Is(err, nl.ErrNotFound) {
		t.Errorf("host device: %v, want none", err)
	}
}

func TestNamesAndAddresses(t *testing.T) {
	o := ipam.Owner{ContainerID: "c", IfName: "eth0"}
	if n := HostName(o); len(n) > 15 || n != HostName(o) || n == HostName(ipam.Owner{ContainerID: "c", IfName: "eth1"}) {
		t.Errorf("host name %q", n)
	}
	six := []netip.Addr{netip.MustParseAddr("fd00::2")}
	if got := PodMAC(append(six, netip.MustParseAddr("10.1.2.3"))).String(); got != "0a:58:0a:01:02:03" {
		t.Errorf("dual: %s", got)
	}
	if got := PodMAC(six); got.String() == "0a:58:00:00:00:00" || got[0] != 0x0a {
		t.Errorf("IPv6: %s", got)
	}
}

func BenchmarkPrivilegedConnect(b *testing.B) {
	nettest.Privileged(b)
	host, pod := nettest.NewNS(b), nettest.NewNS(b)
	s := spec(pod, "10.9.0.2", "fd00:9::2")
	for b.Loop() {
		if _, err := Connect(host.Handle(), s); err != nil {
			b.Fatal(err)
		}
		if err := Disconnect(host.Handle(), s.HostIfName); err != nil {
			b.Fatal(err)
		}
	}
}
