// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package hostnet

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/knftables"

	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/overlay"
)

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range texts {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

func example() overlay.Plan {
	return overlay.Plan{
		Routes: []overlay.Route{
			{Dst: netip.MustParsePrefix("10.0.0.0/16"), Metric: overlay.UnreachableMetric, Unreachable: true},
			{Dst: netip.MustParsePrefix("10.0.2.0/24"), Device: "sealane-wg00", Src: netip.MustParseAddr("192.0.2.1"), MTU: 1400},
			{Dst: netip.MustParsePrefix("192.0.2.2/32"), Device: "sealane-wg00", Table: overlay.RouteTable, MTU: 1400},
			{Dst: netip.MustParsePrefix("192.0.2.2/32"), Table: overlay.RouteTable, Metric: overlay.UnreachableMetric, Unreachable: true},
			{Dst: netip.MustParsePrefix("fd00:0:0:2::/64"), Device: "sealane-wg00", Src: netip.MustParseAddr("2001:db8::1"), MTU: 1400},
		},
		Rules: []overlay.Rule{
			{Priority: overlay.RulePriority, From: netip.MustParsePrefix("10.0.1.0/24"), Table: overlay.RouteTable},
			{Priority: overlay.RulePriority, From: netip.MustParsePrefix("fd00:0:0:1::/64"), Table: overlay.RouteTable},
			{Priority: overlay.RulePriority, From: netip.MustParsePrefix("0.0.0.0/0"), Mark: overlay.LaneMark, Table: overlay.RouteTable},
			{Priority: overlay.RulePriority, From: netip.MustParsePrefix("::/0"), Mark: overlay.LaneMark, Table: overlay.RouteTable},
		},
		Masquerade: overlay.Masquerade{
			Pods: prefixes("10.0.1.0/24", "fd00:0:0:1::/64"), Cluster: prefixes("10.0.0.0/16", "fd00::/48"),
			Nodes: prefixes("192.0.2.1/32", "2001:db8::1/128"), Peers: prefixes("192.0.2.2/32", "2001:db8::2/128"),
			Sources: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		},
		Ports: overlay.Ports{Tunnels: []uint16{51871, 51872, 51873, 51874}, Pairing: 51875, Own: []uint16{9754, 9755}},
	}
}

func TestMasqueradeTable(t *testing.T) {
	fake := knftables.NewFake(knftables.InetFamily, tableName)
	for range 2 { // the second time over the first
		if err := fake.Run(t.Context(), transaction(fake, example().Masquerade, example().Ports, nil)); err != nil {
			t.Fatal(err)
		}
	}
	want := strings.TrimLeft(`
add table inet sealane { comment "what pods send out of the overlay, and what must stay in it" ; }
add chain inet sealane confine { type filter hook postrouting priority 0 ; }
add chain inet sealane fixed { type nat hook prerouting priority -110 ; }
add chain inet sealane fixedout { type nat hook output priority -110 ; }
add chain inet sealane forward { type filter hook forward priority 0 ; }
add chain inet sealane input { type filter hook input priority 0 ; }
add chain inet sealane output { type route hook output priority -150 ; }
add chain inet sealane postrouting { type nat hook postrouting priority 99 ; }
add chain inet sealane prerouting { type filter hook prerouting priority -150 ; }
add chain inet sealane raw { type filter hook prerouting priority -300 ; }
add chain inet sealane rawout { type filter hook output priority -300 ; }
add set inet sealane cluster4 { type ipv4_addr ; flags interval ; }
add set inet sealane cluster6 { type ipv6_addr ; flags interval ; }
add set inet sealane nodes4 { type ipv4_addr ; flags interval ; }
add set inet sealane nodes6 { type ipv6_addr ; flags interval ; }
add set inet sealane peers4 { type ipv4_addr ; flags interval ; }
add set inet sealane peers6 { type ipv6_addr ; flags interval ; }
add set inet sealane pods4 { type ipv4_addr ; flags interval ; }
add set inet sealane pods6 { type ipv6_addr ; flags interval ; }
add set inet sealane readers4 { type ipv4_addr ; flags interval ; }
add set inet sealane readers6 { type ipv6_addr ; flags interval ; }
add map inet sealane here4 { type ipv4_addr : ipv4_addr ; }
add map inet sealane here6 { type ipv6_addr : ipv6_addr ; }
add map inet sealane there4 { type ipv4_addr : ipv4_addr ; }
add map inet sealane there6 { type ipv6_addr : ipv6_addr ; }
add counter inet sealane leak_egress
add counter inet sealane leak_ingress
add counter inet sealane node_port
add rule inet sealane confine meta mark & 0x20000000 == 0x20000000 meta oifgroup != 24225 drop comment "answers that missed their lane"
add rule inet sealane confine ip saddr @pods4 ip daddr @peers4 meta oifgroup != 24225 drop comment "pods to nodes past lanes"
add rule inet sealane confine oifname "sealane-*" ct direction original ct original ip saddr @pods4 ip daddr @peers4 ct mark & 0x1000000 == 0 ct mark set ct mark | 0x1000000 comment "connections into lanes"
add rule inet sealane confine oifgroup != 24225 ip saddr @pods4 ct state invalid,untracked counter name leak_egress drop comment "pods' addresses to elsewhere"
add rule inet sealane confine ip6 saddr @pods6 ip6 daddr @peers6 meta oifgroup != 24225 drop comment "pods to nodes past lanes"
add rule inet sealane confine oifname "sealane-*" ct direction original ct original ip6 saddr @pods6 ip6 daddr @peers6 ct mark & 0x1000000 == 0 ct mark set ct mark | 0x1000000 comment "connections into lanes"
add rule inet sealane confine oifgroup != 24225 ip6 saddr @pods6 ct state invalid,untracked counter name leak_egress drop comment "pods' addresses to elsewhere"
add rule inet sealane fixed iifgroup != 24225 tcp dport { 51875 } dnat ip to ip daddr map @here4 comment "pairing"
add rule inet sealane fixed iifgroup != 24225 tcp dport { 51875 } dnat ip6 to ip6 daddr map @here6 comment "pairing"
add rule inet sealane fixedout tcp dport { 51875 } dnat ip to ip daddr map @there4 comment "pairing"
add rule inet sealane fixedout tcp dport { 51875 } dnat ip6 to ip6 daddr map @there6 comment "pairing"
add rule inet sealane forward meta l4proto tcp ct state invalid meta oifgroup 24225 drop comment "segments that cannot be translated"
add rule inet sealane forward meta oifgroup 24225 ct direction original ct state != related meta mark set meta mark | 0x40000000 comment "not the node's own"
add rule inet sealane input iifgroup 24225 udp dport { 51871, 51872, 51873, 51874 } counter name node_port drop comment "pods to tunnels"
add rule inet sealane input iifgroup 24225 tcp dport { 51875 } counter name node_port drop comment "pods to pairing"
add rule inet sealane input iifgroup 24225 tcp dport { 9754, 9755 } counter name node_port drop comment "pods to agent and controller"
add rule inet sealane output ct direction reply ct mark & 0x20000000 == 0x20000000 meta mark set meta mark | 0x20000000 comment "answers into lanes"
add rule inet sealane output meta l4proto tcp ct state invalid ip daddr @peers4 meta mark set meta mark | 0x20000000 comment "segments without a connection"
add rule inet sealane output meta l4proto tcp ct state invalid ip6 daddr @peers6 meta mark set meta mark | 0x20000000 comment "segments without a connection"
add rule inet sealane postrouting ip saddr @pods4 ip daddr != @cluster4 ip daddr != 224.0.0.0/4 meta oifgroup != 24225 masquerade fully-random comment "pods to the outside"
add rule inet sealane postrouting oifname "sealane-*" ip saddr @pods4 ip daddr @peers4 meta mark & 0x80000000 == 0 snat ip to 192.0.2.1 fully-random comment "pods to other nodes"
add rule inet sealane postrouting oifname "sealane-*" ip saddr != @pods4 ip saddr != @nodes4 snat ip to 192.0.2.1 fully-random comment "foreign sources into lanes"
add rule inet sealane postrouting ip6 saddr @pods6 ip6 daddr != @cluster6 ip6 daddr != ff00::/8 meta oifgroup != 24225 masquerade fully-random comment "pods to the outside"
add rule inet sealane postrouting oifname "sealane-*" ip6 saddr @pods6 ip6 daddr @peers6 meta mark & 0x80000000 == 0 snat ip6 to 2001:db8::1 fully-random comment "pods to other nodes"
add rule inet sealane postrouting oifname "sealane-*" ip6 saddr != @pods6 ip6 saddr != @nodes6 snat ip6 to 2001:db8::1 fully-random comment "foreign sources into lanes"
add rule inet sealane prerouting iifname "sealane-*" ct direction original ct mark & 0x20000000 == 0 ct mark set ct mark | 0x20000000 comment "connections out of lanes"
add rule inet sealane prerouting iifname != "sealane-*" ct direction original ct mark & 0x20000000 == 0x20000000 drop comment "out of a lane, and then past it"
add rule inet sealane prerouting iifname != "sealane-*" ct direction reply ct mark & 0x1000000 == 0x1000000 drop comment "into a lane, answered past it"
add rule inet sealane prerouting ct direction reply ct mark & 0x20000000 == 0x20000000 meta mark set meta mark | 0x20000000 comment "answers into lanes"
add rule inet sealane raw iifgroup != 24225 iifname != "lo" ip saddr @cluster4 counter name leak_ingress drop comment "pods' addresses from elsewhere"
add rule inet sealane raw iifgroup != 24225 ip saddr @peers4 ip daddr @nodes4 udp dport { 51871, 51872, 51873, 51874 } notrack comment "tunnels' packets"
add rule inet sealane raw iifgroup != 24225 iifname != "lo" ip6 saddr @cluster6 counter name leak_ingress drop comment "pods' addresses from elsewhere"
add rule inet sealane raw iifgroup != 24225 ip6 saddr @peers6 ip6 daddr @nodes6 udp dport { 51871, 51872, 51873, 51874 } notrack comment "tunnels' packets"
add rule inet sealane rawout ip daddr @peers4 udp sport { 51871, 51872, 51873, 51874 } notrack comment "tunnels' packets"
add rule inet sealane rawout ip6 daddr @peers6 udp sport { 51871, 51872, 51873, 51874 } notrack comment "tunnels' packets"
add element inet sealane cluster4 { 10.0.0.0/16 }
add element inet sealane cluster6 { fd00::/48 }
add element inet sealane nodes4 { 192.0.2.1/32 }
add element inet sealane nodes6 { 2001:db8::1/128 }
add element inet sealane peers4 { 192.0.2.2/32 }
add element inet sealane peers6 { 2001:db8::2/128 }
add element inet sealane pods4 { 10.0.1.0/24 }
add element inet sealane pods6 { fd00:0:0:1::/64 }
add element inet sealane here4 { 192.0.2.1 : 192.0.2.1 }
add element inet sealane here6 { 2001:db8::1 : 2001:db8::1 }
add element inet sealane there4 { 192.0.2.2 : 192.0.2.2 }
add element inet sealane there6 { 2001:db8::2 : 2001:db8::2 }
`, "\n")
	if diff := cmp.Diff(want, fake.Dump()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

// host returns a namespace with two tunnels, and a Host that works in it.
func host(t *testing.T) (*nettest.NS, *Host) {
	ns := nettest.NewNS(t)
	for _, name := range []string{"sealane-wg00", "sealane-wg01"} {
		ns.Run("ip", "link", "add", name, "type", "veth", "peer", "name", "x"+name)
		ns.Run("ip", "link", "set", "x"+name, "up")
		ns.Run("ip", "link", "set", name, "up", "group", "24225")
	}
	ns.Run("ip", "addr", "add", "192.0.2.1/32", "dev", "sealane-wg00")
	ns.Run("ip", "addr", "add", "2001:db8::1/128", "dev", "sealane-wg00", "nodad")
	h, err := New(ns.Handle(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return ns, h
}

func apply(t *testing.T, h *Host, p overlay.Plan) {
	t.Helper()
	if err := h.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

// routesAndRules returns this package's routes and rules in the kernel, as text.
func routesAndRules(t *testing.T, ns *nettest.NS) string {
	t.Helper()
	var b strings.Builder
	routes, err := ns.Handle().Routes(nl.RouteFilter{Protocol: overlay.RouteProtocol})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		b.WriteString(r.String() + "\n")
	}
	rules, err := ns.Handle().Rules(overlay.RulePriority)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		b.WriteString(r.String() + "\n")
	}
	return b.String()
}

func TestPrivilegedApplyFollowsPlan(t *testing.T) {
	nettest.Privileged(t)
	ns, h := host(t)
	apply(t, h, example())
	first := routesAndRules(t, ns)
	if n := strings.Count(first, "\n"); n != len(example().Routes)+len(example().Rules) {
		t.Fatalf("%d routes and rules:\n%s", n, first)
	}
	apply(t, h, example())
	if diff := cmp.Diff(first, routesAndRules(t, ns)); diff != "" {
		t.Errorf("a second Apply changed something (-first +second):\n%s", diff)
	}

	moved := example()
	moved.Routes[1].Device = "sealane-wg01"
	moved.Routes = moved.Routes[:4]
	moved.Rules = moved.Rules[:1]
	apply(t, h, moved)
	got := routesAndRules(t, ns)
	if strings.Contains(got, "fd00") || strings.Count(got, "\n") != 5 {
		t.Errorf("after a smaller plan:\n%s", got)
	}
	if out := ns.Run("ip", "route", "get", "10.0.2.9"); !strings.Contains(out, "sealane-wg01") || !strings.Contains(out, "src 192.0.2.1") {
		t.Errorf("route to a moved range: %s", out)
	}
	if out, err := ns.Try("ip", "route", "get", "10.0.9.9"); err == nil {
		t.Errorf("an address without a lane is reachable: %s", out)
	}

	if err := h.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := routesAndRules(t, ns); got != "" {
		t.Errorf("left after Clean:\n%s", got)
	}
	if got := ns.Run("nft", "list", "tables"); strings.Contains(got, "sealane") {
		t.Errorf("left after Clean: %s", got)
	}
}

// TestPrivilegedRetract: routes into lanes go that the plan does not have, and what was sent
// there is refused; all else is left alone, also what the plan has and the host has not.
func TestPrivilegedRetract(t *testing.T) {
	nettest.Privileged(t)
	ns, h := host(t)
	apply(t, h, example())
	smaller := example()
	smaller.Routes = append(smaller.Routes[:1:1], smaller.Routes[2:4]...)
	smaller.Routes = append(smaller.Routes, overlay.Route{Dst: netip.MustParsePrefix("10.0.7.0/24"), Device: "sealane-wg00"})
	smaller.Rules = nil
	for range 2 {
		if err := h.Retract(smaller); err != nil {
			t.Fatal(err)
		}
		got := routesAndRules(t, ns)
		if want := len(example().Routes) - 2 + len(example().Rules); strings.Count(got, "\n") != want || strings.Contains(got, "10.0.2.0") || strings.Contains(got, "fd00:0:0:2::/64") || strings.Contains(got, "10.0.7.0") {
			t.Errorf("want %d routes and rules, and none into a lane that is gone:\n%s", want, got)
		}
		if out, err := ns.Try("ip", "route", "get", "10.0.2.9"); err == nil {
			t.Errorf("an address without a lane is reachable: %s", out)
		}
	}
}

func TestPrivilegedForeignRuleStays(t *testing.T) {
	nettest.Privileged(t)
	ns, h := host(t)
	ns.Run("ip", "rule", "add", "from", "198.51.100.0/24", "lookup", "77", "priority", "5154")
	apply(t, h, example())
	if err := h.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := routesAndRules(t, ns); !strings.Contains(got, "lookup 77") {
		t.Errorf("a rule of somebody else is gone:\n%s", got)
	}
}

func TestPrivilegedForwardingKeepsRouterAdvertisements(t *testing.T) {
	nettest.Privileged(t)
	ns, h := host(t)
	ns.Run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=0", "net.ipv6.conf.xsealane-wg00.accept_ra=1")
	apply(t, h, example())
	for name, want := range map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1", "net/ipv6/conf/xsealane-wg00/accept_ra": "2",
	} {
		if got, err := ns.Handle().Sysctl(name); err != nil || got != want {
			t.Errorf("%s is %q, want %q (%v)", name, got, want, err)
		}
	}
}

// TestPrivilegedLaneIsMissing: Apply does what it can, and refuses packets for the missing
// lane.
func TestPrivilegedLaneIsMissing(t *testing.T) {
	nettest.Privileged(t)
	ns, h := host(t)
	p := example()
	p.Routes[1].Device = "sealane-wg11"
	if err := h.Apply(t.Context(), p); !errors.Is(err, nl.ErrNotFound) {
		t.Errorf("error = %v, want ErrNotFound", err)
	}
	if got := routesAndRules(t, ns); strings.Count(got, "\n") != len(p.Routes)-1+len(p.Rules) {
		t.Errorf("routes and rules:\n%s", got)
	}
	for _, addr := range []string{"10.0.2.9", "10.0.9.9"} {
		if out, err := ns.Try("ip", "route", "get", addr); err == nil {
			t.Errorf("%s is reachable: %s", addr, out)
		}
	}
	// The lane of the route goes, and the route with it.
	apply(t, h, example())
	ns.Run("ip", "link", "del", "sealane-wg00")
	if out, err := ns.Try("ip", "route", "get", "10.0.2.9"); err == nil {
		t.Errorf("without its lane, an address is reachable: %s", out)
	}
}

// TestPrivilegedPodsRoutesStay: routes of our protocol to pods are not this package's.
func TestPrivilegedPodsRoutesStay(t *testing.T) {
	nettest.Privileged(t)
	ns, h := host(t)
	ns.Run("ip", "route", "add", "10.0.1.5/32", "dev", "xsealane-wg00", "proto", "94")
	apply(t, h, example())
	if err := h.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := routesAndRules(t, ns); strings.Count(got, "\n") != 1 || !strings.Contains(got, "10.0.1.5/32") {
		t.Errorf("left after Clean:\n%s", got)
	}
}

func TestPrivilegedWarnsOfDroppingFilter(t *testing.T) {
	nettest.Privileged(t)
	ns, _ := host(t)
	ns.Run("nft", "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")
	var text bytes.Buffer
	h, err := New(ns.Handle(), slog.New(slog.NewTextHandler(&text, nil)))
	if err != nil {
		t.Fatal(err)
	}
	apply(t, h, example())
	apply(t, h, example())
	if got := strings.Count(text.String(), "iptables -P FORWARD"); got != 1 || !strings.Contains(text.String(), "family=ip\n") {
		t.Errorf("want one warning:\n%s", text.String())
	}
}
