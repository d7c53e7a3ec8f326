// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package nl

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addresses returns the addresses of a device with their prefix length, sorted. They
// include link-local IPv6 addresses that the kernel created.
func (h *Handle) Addresses(index int) ([]netip.Prefix, error) {
	raw, err := dump(func() ([]netlink.Addr, error) { return h.h.AddrList(byIndex(index), netlink.FAMILY_ALL) })
	if err != nil {
		return nil, kernelError(err, "list addresses of device %d", index)
	}
	out := make([]netip.Prefix, 0, len(raw))
	for _, a := range raw {
		out = append(out, toPrefix(a.IPNet))
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out, nil
}

// AllAddresses returns the addresses of all devices by device index, as [Handle.Addresses]
// does for one, with a single dump.
func (h *Handle) AllAddresses() (map[int][]netip.Prefix, error) {
	raw, err := dump(func() ([]netlink.Addr, error) { return h.h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, kernelError(err, "list addresses")
	}
	out := map[int][]netip.Prefix{}
	for _, a := range raw {
		out[a.LinkIndex] = append(out[a.LinkIndex], toPrefix(a.IPNet))
	}
	for _, addresses := range out {
		slices.SortFunc(addresses, netip.Prefix.Compare)
	}
	return out, nil
}

// EnsureAddress gives the device an address; an address already there is no error.
// IPv6 addresses are usable at once: no duplicate address detection (RFC 4862, 5.4).
func (h *Handle) EnsureAddress(index int, p netip.Prefix) error {
	if !p.IsValid() {
		return fmt.Errorf("add address to device %d: %w: no address", index, ErrInvalid)
	}
	err := kernelError(h.h.AddrAdd(byIndex(index), toNetlinkAddr(p)), "add address %s to device %d", p, index)
	if errors.Is(err, ErrExists) {
		return nil
	}
	return err
}

// DeleteAddress takes an address from a device; a missing one is no error.
func (h *Handle) DeleteAddress(index int, p netip.Prefix) error {
	err := kernelError(h.h.AddrDel(byIndex(index), toNetlinkAddr(p)), "delete address %s from device %d", p, index)
	if errors.Is(err, ErrNotFound) || errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	return err
}

func toNetlinkAddr(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: toIPNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

// Neighbor is an entry of the neighbour table.
type Neighbor struct {
	Addr      netip.Addr
	MAC       net.HardwareAddr
	Permanent bool
}

// EnsureNeighbor sets a permanent neighbour entry and replaces any earlier one.
func (h *Handle) EnsureNeighbor(index int, addr netip.Addr, mac net.HardwareAddr) error {
	n := toNeigh(index, addr)
	n.State, n.HardwareAddr = netlink.NUD_PERMANENT, mac
	return kernelError(h.h.NeighSet(n), "set neighbour %s on device %d", addr, index)
}

// Neighbors returns the neighbour entries of a device, both families.
func (h *Handle) Neighbors(index int) ([]Neighbor, error) {
	var out []Neighbor
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		raw, err := dump(func() ([]netlink.Neigh, error) { return h.h.NeighList(index, f) })
		if err != nil {
			return nil, kernelError(err, "list neighbours of device %d", index)
		}
		for _, n := range raw {
			out = append(out, Neighbor{Addr: toAddr(n.IP), MAC: n.HardwareAddr, Permanent: n.State&netlink.NUD_PERMANENT != 0})
		}
	}
	return out, nil
}

func toNeigh(index int, addr netip.Addr) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: index, Family: family(addr), IP: addr.AsSlice()}
}
