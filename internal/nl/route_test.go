// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package nl_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/internal/nl"
)

func TestRouteString(t *testing.T) {
	for _, tt := range []struct {
		want string
		r    nl.Route
	}{
		{"10.1.0.0/24 dev 7 proto 94 src 192.0.2.1 mtu 1420", nl.Route{
			Dst: netip.MustParsePrefix("10.1.0.0/24"), Device: 7, Src: netip.MustParseAddr("192.0.2.1"),
			Table: nl.MainTable, MTU: 1420, Protocol: 94,
		}},
		{"unreachable fd00::/48 table 5154 proto 94 metric 4278198272", nl.Route{
			Dst: netip.MustParsePrefix("fd00::/48"), Table: 5154, Metric: 4278198272, Unreachable: true, Protocol: 94,
		}},
		{"0.0.0.0/0 via 169.254.1.1 dev 2 onlink", nl.Route{
			Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("169.254.1.1"), Device: 2, Onlink: true,
		}},
	} {
		if got := tt.r.String(); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

// routeCases are the shapes of route that the project uses; dev 0 means the test's device.
func routeCases(dev int) []nl.Route {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	const far = 4278198272
	return []nl.Route{
		{Dst: p("10.1.0.0/24"), Device: dev, Src: a("192.0.2.1"), MTU: 1420, Protocol: 94},
		{Dst: p("10.2.0.0/32"), Device: dev, Table: 5154, Protocol: 94},
		{Dst: p("10.0.0.0/8"), Unreachable: true, Metric: far, Protocol: 94},
		{Dst: p("10.3.0.0/16"), Via: a("192.0.2.9"), Device: dev, Protocol: 4},
		{Dst: p("0.0.0.0/0"), Via: a("169.254.1.1"), Device: dev, Onlink: true},
		{Dst: p("fd00:1::/64"), Device: dev, Src: a("2001:db8::1"), MTU: 1400, Protocol: 94},
		{Dst: p("fd00:2::1/128"), Device: dev, Table: 5154, Protocol: 94},
		{Dst: p("fd00::/16"), Unreachable: true, Metric: far, Protocol: 94},
		{Dst: p("fd00:2::2/128"), Unreachable: true, Table: 5154, Protocol: 94},
		{Dst: p("::/0"), Via: a("fe80::1"), Device: dev},
	}
}

func TestPrivilegedRoutesReadBackAsWritten(t *testing.T) {
	nettest.Privileged(t)
	ns := nettest.NewNS(t)
	h := ns.Handle()
	l := routed(t, ns)
	for _, want := range routeCases(l.Index) {
		t.Run(want.Dst.String(), func(t *testing.T) {
			for range 2 { // replacing a route by itself changes nothing
				if err := h.ReplaceRoute(want); err != nil {
					t.Fatal(err)
				}
			}
			table := want.Table
			if table == 0 {
				table = nl.MainTable
			}
			got := find(t, h, want.Dst, nl.RouteFilter{Table: table, Protocol: want.Protocol})
			want := want
			want.Table = table
			if want.Protocol == 0 && len(got) == 1 {
				want.Protocol = got[0].Protocol
			}
			if diff := cmp.Diff([]nl.Route{want}, got, comparers, cmp.Comparer(func(a, b nl.Route) bool { return a == b })); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for range 2 {
				if err := h.DeleteRoute(want); err != nil {
					t.Errorf("delete: %v", err)
				}
			}
			if left := find(t, h, want.Dst, nl.RouteFilter{Table: table}); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestPrivilegedReplaceRouteMovesItInPlace(t *testing.T) {
	nettest.Privileged(t)
	ns := nettest.NewNS(t)
	h := ns.Handle()
	l := routed(t, ns)
	second, err := h.AddVeth(nl.Veth{Name: "c", PeerName: "d"})
	if err == nil {
		err = h.SetLink(second.Index, nl.LinkSettings{State: nl.Up})
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, dst := range []string{"10.1.0.0/24", "fd00:1::/64"} {
		for _, dev := range []int{l.Index, second.Index, l.Index} {
			want := nl.Route{Dst: netip.MustParsePrefix(dst), Device: dev, Table: nl.MainTable, Protocol: 94}
			if err := h.ReplaceRoute(want); err != nil {
				t.Fatal(err)
			}
			if got := find(t, h, want.Dst, nl.RouteFilter{Table: nl.MainTable}); len(got) != 1 || got[0] != want {
				t.Errorf("routes = %v, want only %v", got, want)
			}
		}
	}
}

func TestPrivilegedRouteErrors(t *testing.T) {
	nettest.Privileged(t)
	h := nettest.NewNS(t).Handle()
	for _, tt := range []struct {
		name string
		r    nl.Route
		want error
	}{
		{"no destination", nl.Route{Device: 1}, nl.ErrInvalid},
		{"host bits", nl.Route{Dst: netip.MustParsePrefix("10.0.0.1/8"), Device: 1}, nl.ErrInvalid},
		{"no device", nl.Route{Dst: netip.MustParsePrefix("10.0.0.0/8"), Device: 9999}, nl.ErrNotFound},
	} {
		if err := h.ReplaceRoute(tt.r); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestPrivilegedRules(t *testing.T) {
	nettest.Privileged(t)
	h := nettest.NewNS(t).Handle()
	p := netip.MustParsePrefix
	want := []nl.Rule{
		{Priority: 5154, From: p("10.1.0.0/24"), Table: 5154},
		{Priority: 5154, To: p("10.9.0.0/24"), Table: 5154},
		{Priority: 5154, From: p("fd00:1::/64"), Table: 5154},
		{Priority: 5154, From: p("::/0"), Table: 77},
		{Priority: 5154, From: p("0.0.0.0/0"), Mark: 0x20000000, Mask: 0x20000000, Table: 5154},
		{Priority: 5154, From: p("0.0.0.0/0"), Mark: 0, Mask: 0x20000000, Table: 5154},
		{Priority: 5154, From: p("::/0"), Mark: 0x20000000, Mask: 0x20000000, Table: 5154},
	}
	for range 2 {
		for _, r := range want {
			if err := h.AddRule(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, err := h.Rules(5154)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Errorf("rules = %v, want %v", got, want)
	}
	for _, r := range want {
		if !slices.Contains(got, r) {
			t.Errorf("rules = %v lack %v", got, r)
		}
	}
	for _, r := range got {
		if err := h.DeleteRule(r); err != nil {
			t.Errorf("delete %v: %v", r, err)
		}
		if err := h.DeleteRule(r); err != nil {
			t.Errorf("delete again %v: %v", r, err)
		}
	}
	if left, err := h.Rules(5154); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	for _, bad := range []nl.Rule{{Table: 5}, {From: p("10.0.0.0/8"), To: p("fd00::/8")}, {From: p("10.0.0.0/8"), Mark: 3, Mask: 1}} {
		if err := h.AddRule(bad); !errors.Is(err, nl.ErrInvalid) {
			t.Errorf("AddRule(%v) = %v, want ErrInvalid", bad, err)
		}
	}
}

// routed gives the namespace a device with an address of each family.
func routed(t *testing.T, ns *nettest.NS) nl.Link {
	t.Helper()
	l, _ := nettest.Wire(t,
		nettest.End{NS: ns, Name: "a", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}},
		nettest.End{NS: ns, Name: "b"})
	return l
}

func find(t *testing.T, h *nl.Handle, dst netip.Prefix, f nl.RouteFilter) []nl.Route {
	t.Helper()
	all, err := h.Routes(f)
	if err != nil {
		t.Fatal(err)
	}
	var out []nl.Route
	for _, r := range all {
		if r.Dst == dst {
			out = append(out, r)
		}
	}
	return out
}
