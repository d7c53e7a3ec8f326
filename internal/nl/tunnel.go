// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package nl

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Tunnel describes the wanted state of a tunnel device.
type Tunnel struct {
	MTU       int
	Alias     string
	Group     uint32
	Addresses []netip.Prefix // exactly these
}

// EnsureTunnel makes a tunnel device match t, sets it up and returns it. It does not touch
// what matches already.
func (h *Handle) EnsureTunnel(name string, t Tunnel) (Link, error) {
	l, err := h.LinkByName(name)
	if err != nil {
		return Link{}, err
	}
	if err := h.quietTunnel(name, t); err != nil {
		return Link{}, err
	}
	if err := h.SetLink(l.Index, t.settings(l)); err != nil {
		return Link{}, err
	}
	// This follows setting the device up: an IPv6 address on a device that is down is not
	// usable, and its route would be missing.
	if err := h.exactAddresses(l.Index, t.Addresses); err != nil {
		return Link{}, err
	}
	return h.LinkByIndex(l.Index)
}

// settings returns the changes that l needs.
func (t Tunnel) settings(l Link) LinkSettings {
	s := LinkSettings{MTU: t.MTU, Alias: t.Alias, Group: t.Group, State: Up}
	if l.MTU == t.MTU {
		s.MTU = 0
	}
	if l.Alias == t.Alias {
		s.Alias = ""
	}
	if l.Group == t.Group {
		s.Group = 0
	}
	if l.Up {
		s.State = KeepState
	}
	return s
}

// quietTunnel applies the kernel settings that a tunnel needs: a loose reverse path check,
// because a peer's answer may arrive on another tunnel than the request used, and no
// addresses or packets that the kernel would generate by itself.
func (h *Handle) quietTunnel(name string, t Tunnel) error {
	if _, err := h.SetSysctl(fmt.Sprintf("net/ipv4/conf/%s/rp_filter", name), "2"); err != nil {
		return err
	}
	has6 := slices.ContainsFunc(t.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() })
	settings := []struct{ key, value string }{
		{"addr_gen_mode", "1"}, // no link-local address, hence no router solicitation
		{"accept_ra", "0"},
		{"autoconf", "0"},
	}
	if has6 {
		settings = append(settings, struct{ key, value string }{"disable_ipv6", "0"})
	}
	for _, s := range settings {
		_, err := h.SetSysctl(fmt.Sprintf("net/ipv6/conf/%s/%s", name, s.key), s.value)
		if errors.Is(err, ErrNotFound) && !has6 {
			return nil // a kernel without IPv6 needs none of these
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// exactAddresses adds missing addresses before it deletes surplus ones, so that a device
// that keeps an address is never without one.
func (h *Handle) exactAddresses(index int, want []netip.Prefix) error {
	have, err := h.Addresses(index)
	if err != nil {
		return err
	}
	for _, p := range want {
		if slices.Contains(have, p) {
			continue
		}
		if err := h.EnsureAddress(index, p); err != nil {
			return err
		}
	}
	for _, p := range have {
		if slices.Contains(want, p) {
			continue
		}
		if err := h.DeleteAddress(index, p); err != nil {
			return err
		}
	}
	return nil
}
