// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package podnet

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/sealane/sealane/internal/nl"
)

// Check compares a pod's network with its Spec; the error wraps ErrDiffers and lists all
// differences.
func Check(h *nl.Handle, s Spec) error {
	if s.MTU == 0 {
		outer, err := h.LinkByName(s.HostIfName)
		if err != nil {
			return differs("host device %s: %w", s.HostIfName, err)
		}
		s.MTU = outer.MTU
	}
	pod, err := open(h, s)
	if err != nil {
		return err
	}
	defer pod.Close()
	p := &pair{spec: s, host: h, pod: pod}
	if err := p.find(); err != nil {
		return err
	}
	return p.check()
}

// find looks both ends up.
func (p *pair) find() (err error) {
	if p.outer, err = p.host.LinkByName(p.spec.HostIfName); err != nil {
		return differs("host device %s: %w", p.spec.HostIfName, err)
	}
	if p.inner, err = p.pod.LinkByName(p.spec.IfName); err != nil {
		return differs("pod device %s: %w", p.spec.IfName, err)
	}
	if p.outer.PeerIndex != p.inner.Index || p.inner.PeerIndex != p.outer.Index {
		return differs("pod device %s is not the other end of %s", p.spec.IfName, p.spec.HostIfName)
	}
	return nil
}

// check compares what find has found with the Spec.
func (p *pair) check() error {
	return errors.Join(
		p.checkGroup(),
		p.checkLink(p.outer, HostMAC()),
		p.checkLink(p.inner, PodMAC(p.spec.Addresses)),
		p.checkAddresses(),
		checkPaths(p.pod, p.inner, p.paths(func(a netip.Addr) path {
			return path{inner(a, p.inner.Index), nl.Neighbor{Addr: Gateway(a), MAC: HostMAC(), Permanent: true}}
		})),
		checkPaths(p.host, p.outer, p.paths(func(a netip.Addr) path {
			return path{outer(a, p.outer.Index), nl.Neighbor{Addr: a, MAC: PodMAC(p.spec.Addresses), Permanent: true}}
		})),
	)
}

// checkGroup detects a device whose deletion was interrupted.
func (p *pair) checkGroup() error {
	if p.outer.Group != DeviceGroup {
		return differs("%s is in device group %#x, want %#x", p.outer.Name, p.outer.Group, uint32(DeviceGroup))
	}
	return nil
}

func (p *pair) checkLink(l nl.Link, mac net.HardwareAddr) error {
	var errs []error
	if !l.Up {
		errs = append(errs, differs("%s is down", l.Name))
	}
	if l.MTU != p.spec.MTU {
		errs = append(errs, differs("%s has MTU %d, want %d", l.Name, l.MTU, p.spec.MTU))
	}
	if !bytes.Equal(l.MAC, mac) {
		errs = append(errs, differs("%s has hardware address %s, want %s", l.Name, l.MAC, mac))
	}
	return errors.Join(errs...)
}

// checkAddresses checks that the pod has its addresses. Additional ones are the pod's
// business.
func (p *pair) checkAddresses() error {
	has, err := p.pod.Addresses(p.inner.Index)
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range p.spec.Addresses {
		if !slices.Contains(has, host(a)) {
			errs = append(errs, differs("%s has addresses %v, want %s", p.spec.IfName, has, host(a)))
		}
	}
	return errors.Join(errs...)
}

// path is how one end reaches the other: a route, and the neighbour it leads to.
type path struct {
	route     nl.Route
	neighbour nl.Neighbor
}

// paths returns the path for each address.
func (p *pair) paths(of func(netip.Addr) path) (all []path) {
	for _, a := range p.spec.Addresses {
		all = append(all, of(a))
	}
	return all
}

// checkPaths looks for the paths of one end.
func checkPaths(h *nl.Handle, end nl.Link, want []path) error {
	routes, err := h.Routes(nl.RouteFilter{Device: end.Index, Table: nl.MainTable})
	if err != nil {
		return err
	}
	neighbours, err := h.Neighbors(end.Index)
	if err != nil {
		return err
	}
	var errs []error
	for _, w := range want {
		if !slices.Contains(routes, w.route) {
			errs = append(errs, differs("%s lacks the route %s; it has %v", end.Name, w.route, routes))
		}
		same := func(n nl.Neighbor) bool {
			return n.Addr == w.neighbour.Addr && n.Permanent && bytes.Equal(n.MAC, w.neighbour.MAC)
		}
		if !slices.ContainsFunc(neighbours, same) {
			errs = append(errs, differs("%s lacks the permanent neighbour %s %s; it has %v",
				end.Name, w.neighbour.Addr, w.neighbour.MAC, neighbours))
		}
	}
	return errors.Join(errs...)
}

// differs returns an error that wraps ErrDiffers.
func differs(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDiffers, fmt.Errorf(format, args...))
}
