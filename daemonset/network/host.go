// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package network

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/overlay"
)

// host is what a pass has read of the kernel, once, at its begin. On a node with
// hundreds of pods each dump has hundreds of entries.
type host struct {
	links     []nl.Link
	addresses map[int][]netip.Prefix // by device index
	routes    []nl.Route             // of the main table
}

func (l *Loop) observe() (h host, err error) {
	if h.links, err = l.Links.Links(); err != nil {
		return h, err
	}
	if h.addresses, err = l.Links.AllAddresses(); err != nil {
		return h, err
	}
	h.routes, err = l.Links.Routes(nl.RouteFilter{Table: nl.MainTable})
	return h, err
}

func (h host) link(name string) (nl.Link, bool) {
	i := slices.IndexFunc(h.links, func(l nl.Link) bool { return l.Name == name })
	if i < 0 {
		return nl.Link{}, false
	}
	return h.links[i], true
}

func (h host) names() map[string]bool {
	names := map[string]bool{}
	for _, l := range h.links {
		names[l.Name] = true
	}
	return names
}

// holdsAny reports whether a device has one of the addresses.
func (h host) holdsAny(index int, addresses []netip.Addr) bool {
	return slices.ContainsFunc(h.addresses[index], func(p netip.Prefix) bool { return slices.Contains(addresses, p.Addr()) })
}

// leadsOut reports whether a device carries a default route.
func (h host) leadsOut(index int) bool {
	return slices.ContainsFunc(h.routes, func(r nl.Route) bool {
		return r.Device == index && r.Dst.Bits() == 0 && !r.Unreachable
	})
}

// uplinks returns the configured devices; without a configuration, those that hold
// one of the node's addresses or carry a default route.
func (h host) uplinks(configured []string, addresses []netip.Addr) []nl.Link {
	var found []nl.Link
	for _, l := range h.links {
		if l.Group == overlay.DeviceGroup || l.Name == "lo" {
			continue
		}
		match := slices.Contains(configured, l.Name)
		if len(configured) == 0 {
			match = h.holdsAny(l.Index, addresses) || h.leadsOut(l.Index)
		}
		if match {
			found = append(found, l)
		}
	}
	return found
}

// underlayMTU returns the MTU of the device that holds the node's first address: it
// carries the lanes' outer packets.
func (h host) underlayMTU(addresses []netip.Addr) (int, error) {
	for _, l := range h.links {
		if l.Group == overlay.DeviceGroup {
			continue // tunnel devices have the node's addresses too
		}
		if h.holdsAny(l.Index, addresses[:1]) {
			return l.MTU, nil
		}
	}
	return 0, fmt.Errorf("no device has the node's address %s: the kubelet reports an InternalIP that is not here (--node-ip)", addresses[0])
}

// guardUplinks puts the leak guard on every uplink, and returns their names.
func (l *Loop) guardUplinks(h host, addresses []netip.Addr) ([]string, error) {
	found := h.uplinks(l.Plan.Uplinks, addresses)
	if len(found) == 0 {
		return nil, fmt.Errorf("no uplink found: none of %v is on a device, and there is no default route; name the devices with --uplinks", addresses)
	}
	var names []string
	for _, link := range found {
		e := bpf.L2
		if len(link.MAC) == 0 {
			e = bpf.L3
		}
		if err := l.Datapath.AttachUplink(bpf.Device{Index: link.Index, Name: link.Name}, e); err != nil {
			return names, err
		}
		names = append(names, link.Name)
	}
	return names, nil
}
