// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package podnet

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sealane/sealane/internal/nl"
)

// Connect makes the pod's device, or finds that it is there already. After an
// error nothing of it is left. h is the host's namespace.
func Connect(h *nl.Handle, s Spec) (Result, error) {
	if err := s.validate(); err != nil {
		return Result{}, err
	}
	pod, err := nl.OpenAt(s.Netns)
	if err != nil {
		return Result{}, fmt.Errorf("open network namespace %s: %w", s.Netns, err)
	}
	defer pod.Close()
	if index, err := check(h, pod, s); err == nil {
		return s.result(index), nil // a retry of what had worked
	}
	if err := errors.Join(h.DeleteLink(s.HostIfName), pod.DeleteLink(s.IfName)); err != nil {
		return Result{}, fmt.Errorf("remove what an earlier attempt left: %w", err)
	}
	link, err := h.AddVeth(nl.Veth{
		Name: s.HostIfName, MAC: HostMAC(), Alias: s.Owner.String(), Group: DeviceGroup, MTU: s.MTU,
		PeerName: s.IfName, PeerMAC: PodMAC(s.Addresses), PeerNetns: s.Netns,
	})
	if err != nil {
		return Result{}, err
	}
	// The host side comes up last: with it, the pod begins to send.
	for _, step := range []func() error{
		func() error { return setUpInner(pod, s) },
		func() error { return setUpOuter(h, link.Index, s) },
	} {
		if err := step(); err != nil {
			return Result{}, errors.Join(err, h.DeleteLink(s.HostIfName))
		}
	}
	return s.result(link.Index), nil
}

func (s Spec) result(index int) Result {
	return Result{HostIndex: index, HostMAC: HostMAC(), PodMAC: PodMAC(s.Addresses)}
}

func setUpInner(pod *nl.Handle, s Spec) error {
	lo, err := pod.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := pod.SetLink(lo.Index, nl.LinkSettings{State: nl.Up}); err != nil {
		return err
	}
	dev, err := pod.LinkByName(s.IfName)
	if err != nil {
		return err
	}
	if !s.has6() { // else the kernel would solicit routers that are not there
		if _, err := pod.SetSysctl("net/ipv6/conf/"+s.IfName+"/disable_ipv6", "1"); err != nil && !errors.Is(err, nl.ErrNotFound) {
			return err
		}
	} else if _, err := pod.SetSysctl("net/ipv6/conf/"+s.IfName+"/accept_ra", "0"); err != nil {
		return err
	}
	for _, a := range s.Addresses {
		if err := pod.EnsureAddress(dev.Index, host(a)); err != nil {
			return err
		}
	}
	if err := pod.SetLink(dev.Index, nl.LinkSettings{State: nl.Up}); err != nil {
		return err
	}
	for _, a := range s.Addresses {
		if err := pod.EnsureNeighbor(dev.Index, Gateway(a), HostMAC()); err != nil {
			return err
		}
		if err := pod.ReplaceRoute(inner(a, dev.Index)); err != nil {
			return err
		}
	}
	return nil
}

func setUpOuter(h *nl.Handle, index int, s Spec) error {
	for name, value := range map[string]string{
		"accept_ra":     "0",
		"addr_gen_mode": "1", // no link-local address: nobody talks to it
	} {
		if _, err := h.SetSysctl("net/ipv6/conf/"+s.HostIfName+"/"+name, value); err != nil && !errors.Is(err, nl.ErrNotFound) {
			return err
		}
	}
	if err := h.SetLink(index, nl.LinkSettings{State: nl.Up}); err != nil {
		return err
	}
	for _, a := range s.Addresses {
		if err := h.EnsureNeighbor(index, a, PodMAC(s.Addresses)); err != nil {
			return err
		}
		if err := h.ReplaceRoute(outer(a, index)); err != nil {
			return err
		}
	}
	return nil
}

// Disconnect removes a pod's device by the name of its host side; that it is
// gone, with the pod's namespace perhaps, is no error.
func Disconnect(h *nl.Handle, hostIfName string) error { return h.DeleteLink(hostIfName) }

// Check compares a pod's network with its Spec; the error wraps ErrDiffers and
// says what is different.
func Check(h *nl.Handle, s Spec) error {
	if err := s.validate(); err != nil {
		return err
	}
	pod, err := nl.OpenAt(s.Netns)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", s.Netns, err)
	}
	defer pod.Close()
	_, err = check(h, pod, s)
	return err
}

func check(h, pod *nl.Handle, s Spec) (int, error) {
	outside, err := h.LinkByName(s.HostIfName)
	if err != nil {
		return 0, fmt.Errorf("%w: host device %s: %w", ErrDiffers, s.HostIfName, err)
	}
	inside, err := pod.LinkByName(s.IfName)
	if err != nil {
		return 0, fmt.Errorf("%w: pod device %s: %w", ErrDiffers, s.IfName, err)
	}
	if outside.PeerIndex != inside.Index || inside.PeerIndex != outside.Index {
		return 0, fmt.Errorf("%w: %s is not the other end of %s", ErrDiffers, s.IfName, s.HostIfName)
	}
	if err := errors.Join(checkLink(outside, s), checkLink(inside, s)); err != nil {
		return 0, err
	}
	if inside.MAC.String() != PodMAC(s.Addresses).String() {
		return 0, fmt.Errorf("%w: %s has hardware address %s, not %s", ErrDiffers, s.IfName, inside.MAC, PodMAC(s.Addresses))
	}
	for _, a := range s.Addresses {
		if err := checkAddress(h, pod, ends{outside.Index, inside.Index}, a); err != nil {
			return 0, err
		}
	}
	return outside.Index, nil
}

func checkLink(l nl.Link, s Spec) error {
	if !l.Up {
		return fmt.Errorf("%w: %s is down", ErrDiffers, l.Name)
	}
	if l.MTU != s.MTU {
		return fmt.Errorf("%w: %s has MTU %d, not %d", ErrDiffers, l.Name, l.MTU, s.MTU)
	}
	return nil
}

type ends struct{ outside, inside int }

func checkAddress(h, pod *nl.Handle, dev ends, a netip.Addr) error {
	has, err := pod.Addresses(dev.inside)
	if err != nil {
		return err
	}
	if !slices.Contains(has, host(a)) {
		return fmt.Errorf("%w: pod has addresses %v, not %s", ErrDiffers, has, a)
	}
	for _, side := range []struct {
		h     *nl.Handle
		route nl.Route
		hop   nl.Neighbor
	}{
		{pod, inner(a, dev.inside), nl.Neighbor{Addr: Gateway(a), MAC: HostMAC()}},
		{h, outer(a, dev.outside), nl.Neighbor{Addr: a}},
	} {
		routes, err := side.h.Routes(nl.RouteFilter{Device: side.route.Device, Table: nl.MainTable})
		if err != nil {
			return err
		}
		if !slices.Contains(routes, side.route) {
			return fmt.Errorf("%w: no route %s", ErrDiffers, side.route)
		}
		hops, err := side.h.Neighbors(side.route.Device)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(hops, func(n nl.Neighbor) bool { return n.Addr == side.hop.Addr }) {
			return fmt.Errorf("%w: no neighbour %s", ErrDiffers, side.hop.Addr)
		}
	}
	return nil
}
