// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package hostnet

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/overlay"
)

// applyRoutes changes the routes of this package to want. It adds missing routes first,
// unreachable ones before all others, and removes surplus ones last, so that no destination
// is without its route in between.
func (h *Host) applyRoutes(want []overlay.Route) error {
	extra, err := h.ownRoutes()
	if err != nil {
		return err
	}
	var errs []error
	devices := map[string]int{}
	for _, r := range refusalsFirst(want) {
		route, err := h.route(r, devices)
		if err == nil && !extra[route] {
			err = h.links.ReplaceRoute(route)
		}
		if err != nil {
			errs = append(errs, err)
			continue // an old route into another lane is removed with the rest
		}
		forgetReplaced(extra, route)
	}
	for r := range extra {
		errs = append(errs, h.links.DeleteRoute(r))
	}
	return errors.Join(errs...)
}

// ownRoutes returns the routes of this package: unreachable ones and those into a lane.
// Other routes with our protocol number belong to pods.
func (h *Host) ownRoutes() (map[nl.Route]bool, error) {
	routes, err := h.links.Routes(nl.RouteFilter{Protocol: overlay.RouteProtocol})
	if err != nil {
		return nil, err
	}
	links, err := h.links.Links()
	if err != nil {
		return nil, err
	}
	lanes := map[int]bool{}
	for _, l := range links {
		lanes[l.Index] = strings.HasPrefix(l.Name, overlay.DevicePrefix)
	}
	own := map[nl.Route]bool{}
	for _, r := range routes {
		if r.Unreachable || lanes[r.Device] {
			own[r] = true
		}
	}
	return own, nil
}

func refusalsFirst(routes []overlay.Route) []overlay.Route {
	out := slices.Clone(routes)
	slices.SortStableFunc(out, func(a, b overlay.Route) int {
		switch {
		case a.Unreachable == b.Unreachable:
			return 0
		case a.Unreachable:
			return -1
		}
		return 1
	})
	return out
}

// forgetReplaced drops from extra the routes with the destination, table and metric of by,
// which the kernel replaces by it.
func forgetReplaced(extra map[nl.Route]bool, by nl.Route) {
	for r := range extra {
		if r.Dst == by.Dst && r.Table == by.Table && r.Metric == by.Metric {
			delete(extra, r)
		}
	}
}

func (h *Host) route(r overlay.Route, devices map[string]int) (nl.Route, error) {
	out := nl.Route{
		Dst: r.Dst, Src: r.Src, Table: tableOf(r), Metric: r.Metric, MTU: r.MTU,
		Unreachable: r.Unreachable, Protocol: overlay.RouteProtocol,
	}
	if r.Unreachable {
		return out, nil
	}
	if devices[r.Device] == 0 {
		l, err := h.links.LinkByName(r.Device)
		if err != nil {
			return out, fmt.Errorf("route %s: find lane: %w", r.Dst, err)
		}
		devices[r.Device] = l.Index
	}
	out.Device = devices[r.Device]
	return out, nil
}

func tableOf(r overlay.Route) int { return cmp.Or(r.Table, nl.MainTable) }

func (h *Host) applyRules(want []overlay.Rule) error {
	have, err := h.links.Rules(overlay.RulePriority)
	if err != nil {
		return err
	}
	extra := map[nl.Rule]bool{}
	for _, r := range have {
		if r.Table == overlay.RouteTable { // a foreign rule may have our priority
			extra[r] = true
		}
	}
	for _, r := range want {
		rule := nl.Rule{Priority: r.Priority, From: r.From, Mark: r.Mark, Mask: r.Mark, Table: r.Table}
		if extra[rule] {
			delete(extra, rule)
			continue
		}
		if err := h.links.AddRule(rule); err != nil {
			return err
		}
	}
	var errs []error
	for r := range extra {
		errs = append(errs, h.links.DeleteRule(r))
	}
	return errors.Join(errs...)
}
