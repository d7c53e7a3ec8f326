// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package nl

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// MainTable is the route table that `ip route` shows (RT_TABLE_MAIN).
const MainTable = unix.RT_TABLE_MAIN

// defaultMetric6 is what the kernel stores for an IPv6 route added without a
// metric (IP6_RT_PRIO_USER). It is read back as 0, so that a route compares equal
// to the one that was asked for.
const defaultMetric6 = 1024

// Route is one route of the namespace; comparable.
type Route struct {
	Dst         netip.Prefix // always valid; the default route is 0.0.0.0/0 or ::/0
	Via         netip.Addr
	Device      int // index; 0 for unreachable routes
	Src         netip.Addr
	Table       int // 0 means MainTable
	Metric      int // 0 means the kernel's default
	MTU         int // bytes; 0 means the device's
	Unreachable bool
	Onlink      bool
	Protocol    int // origin of the route (RTPROT_*)
}

// String returns the route in the style of ip-route(8).
func (r Route) String() string {
	var b strings.Builder
	if r.Unreachable {
		b.WriteString("unreachable ")
	}
	b.WriteString(r.Dst.String())
	if r.Via.IsValid() {
		fmt.Fprintf(&b, " via %s", r.Via)
	}
	word := func(name string, v int) {
		if v != 0 {
			fmt.Fprintf(&b, " %s %s", name, strconv.Itoa(v))
		}
	}
	word("dev", r.Device)
	if r.Table != MainTable {
		word("table", r.Table)
	}
	word("proto", r.Protocol)
	if r.Src.IsValid() {
		fmt.Fprintf(&b, " src %s", r.Src)
	}
	word("metric", r.Metric)
	word("mtu", r.MTU)
	if r.Onlink {
		b.WriteString(" onlink")
	}
	return b.String()
}

// RouteFilter selects routes; a zero field selects all. Without a Table it selects routes
// of all tables, including the kernel's own (table local).
type RouteFilter struct {
	Table    int
	Protocol int
	Device   int
}

// Routes returns the matching routes, IPv4 before IPv6, sorted.
func (h *Handle) Routes(f RouteFilter) ([]Route, error) {
	// RT_FILTER_TABLE with table 0 tells the library to include all tables.
	mask, want := netlink.RT_FILTER_TABLE, &netlink.Route{Table: f.Table}
	var out []Route
	for _, fam := range []int{unix.AF_INET, unix.AF_INET6} {
		raw, err := dump(func() ([]netlink.Route, error) { return h.h.RouteListFiltered(fam, want, mask) })
		if err != nil {
			return nil, kernelError(err, "list routes")
		}
		for _, r := range raw {
			route := toRoute(r)
			if f.Protocol != 0 && route.Protocol != f.Protocol || f.Device != 0 && route.Device != f.Device {
				continue
			}
			out = append(out, route)
		}
	}
	slices.SortFunc(out, compareRoutes)
	return out, nil
}

func compareRoutes(a, b Route) int {
	if c := a.Dst.Compare(b.Dst); c != 0 {
		return c
	}
	return strings.Compare(a.String(), b.String())
}

func toRoute(r netlink.Route) Route {
	out := Route{
		Dst: toPrefix(r.Dst), Via: toAddr(r.Gw), Device: r.LinkIndex, Src: toAddr(r.Src), Table: r.Table,
		Metric: r.Priority, MTU: r.MTU, Protocol: int(r.Protocol),
		Unreachable: r.Type == unix.RTN_UNREACHABLE,
		Onlink:      r.Flags&int(netlink.FLAG_ONLINK) != 0,
	}
	if r.Gw == nil {
		out.Via = netip.Addr{}
	}
	if r.Src == nil {
		out.Src = netip.Addr{}
	}
	if !out.Dst.IsValid() {
		out.Dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if r.Family == unix.AF_INET6 {
			out.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	}
	if r.Family == unix.AF_INET6 && out.Metric == defaultMetric6 {
		out.Metric = 0
	}
	if out.Unreachable {
		out.Device = 0 // IPv6 reports lo
	}
	return out
}

// ReplaceRoute adds the route, or replaces the one with the same destination, table and
// metric. The error is ErrNotFound when the device is gone.
func (h *Handle) ReplaceRoute(r Route) error {
	raw, err := toNetlinkRoute(r)
	if err != nil {
		return err
	}
	return kernelError(h.h.RouteReplace(raw), "set route %s", r)
}

// DeleteRoute removes the route; a missing one is no error.
func (h *Handle) DeleteRoute(r Route) error {
	raw, err := toNetlinkRoute(r)
	if err != nil {
		return err
	}
	err = kernelError(h.h.RouteDel(raw), "delete route %s", r)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

func toNetlinkRoute(r Route) (*netlink.Route, error) {
	if !r.Dst.IsValid() || r.Dst != r.Dst.Masked() {
		return nil, fmt.Errorf("route %s: %w: destination must be a prefix without host bits", r, ErrInvalid)
	}
	out := &netlink.Route{
		Family: family(r.Dst.Addr()), Dst: toIPNet(r.Dst), LinkIndex: r.Device, Table: r.Table,
		Priority: r.Metric, MTU: r.MTU, Protocol: netlink.RouteProtocol(r.Protocol), Type: unix.RTN_UNICAST,
	}
	if out.Table == 0 {
		out.Table = MainTable
	}
	if r.Unreachable {
		out.Type = unix.RTN_UNREACHABLE
	}
	if r.Via.IsValid() {
		out.Gw = r.Via.AsSlice()
	} else if !r.Unreachable {
		out.Scope = unix.RT_SCOPE_LINK
	}
	if r.Src.IsValid() {
		out.Src = r.Src.AsSlice()
	}
	if r.Onlink {
		out.Flags |= int(netlink.FLAG_ONLINK)
	}
	return out, nil
}
