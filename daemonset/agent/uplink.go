// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/overlay"
)

// guardUplinks puts the leak guard on every device that leads out of the node,
// and names them.
func (n *network) guardUplinks(addresses []netip.Addr) ([]string, error) {
	found, err := n.uplinks(addresses)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no uplink found: none of %v is on a device, and there is no default route; name the devices with --uplinks", addresses)
	}
	var names []string
	for _, l := range found {
		e := bpf.L2
		if len(l.MAC) == 0 {
			e = bpf.L3
		}
		if err := n.datapath.AttachUplink(bpf.Device{Index: l.Index, Name: l.Name}, e); err != nil {
			return names, err
		}
		names = append(names, l.Name)
	}
	return names, nil
}

// uplinks are the devices named by --uplinks, or those that hold one of the
// node's addresses or carry a default route.
func (n *network) uplinks(addresses []netip.Addr) ([]nl.Link, error) {
	all, err := n.links.Links()
	if err != nil {
		return nil, err
	}
	byDefault, err := n.defaultDevices()
	if err != nil {
		return nil, err
	}
	var found []nl.Link
	for _, l := range all {
		if l.Group == overlay.DeviceGroup || l.Name == "lo" {
			continue
		}
		match := slices.Contains(n.cfg.Uplinks, l.Name)
		if len(n.cfg.Uplinks) == 0 {
			if match, err = n.holdsAny(l.Index, addresses); err != nil {
				return nil, err
			}
			match = match || byDefault[l.Index]
		}
		if match {
			found = append(found, l)
		}
	}
	return found, nil
}

func (n *network) holdsAny(index int, addresses []netip.Addr) (bool, error) {
	has, err := n.links.Addresses(index)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(has, func(p netip.Prefix) bool { return slices.Contains(addresses, p.Addr()) }), nil
}

func (n *network) defaultDevices() (map[int]bool, error) {
	routes, err := n.links.Routes(nl.RouteFilter{Table: nl.MainTable})
	if err != nil {
		return nil, err
	}
	devices := map[int]bool{}
	for _, r := range routes {
		if r.Dst.Bits() == 0 && !r.Unreachable {
			devices[r.Device] = true
		}
	}
	return devices, nil
}

// underlayMTU is that of the device that holds the node's first address: it
// carries the lanes' outer packets.
func (n *network) underlayMTU(addresses []netip.Addr) (int, error) {
	all, err := n.links.Links()
	if err != nil {
		return 0, err
	}
	for _, l := range all {
		if l.Group == overlay.DeviceGroup {
			continue // lanes have the node's addresses too
		}
		if ok, err := n.holdsAny(l.Index, addresses[:1]); err != nil {
			return 0, err
		} else if ok {
			return l.MTU, nil
		}
	}
	return 0, fmt.Errorf("no device has the node's address %s: the kubelet reports an InternalIP that is not here (--node-ip)", addresses[0])
}
