// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package podnet

import (
	"context"
	"errors"
	"fmt"

	"github.com/sealane/sealane/internal/nl"
)

// Connect creates the pod's device, or finds it complete. After an error nothing of it is
// left. ctx bounds the wait for the kernel; h belongs to the host's namespace.
func Connect(ctx context.Context, h *nl.Handle, s Spec) (Result, error) {
	pod, err := open(h, s)
	if err != nil {
		return Result{}, err
	}
	defer pod.Close()
	p := &pair{spec: s, host: h, pod: pod}
	if p.find() == nil && p.check() == nil && p.settle(ctx) == nil && s.onCreate(p.outer.Index) == nil {
		return p.result(), nil // a retry of a success
	}
	if err := p.clear(); err != nil {
		return Result{}, fmt.Errorf("remove what an earlier attempt left: %w", err)
	}
	if err := p.make(p.steps(ctx)); err != nil {
		return Result{}, err
	}
	return p.result(), nil
}

// open checks the Spec and opens the pod's namespace.
func open(h *nl.Handle, s Spec) (*nl.Handle, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	pod, err := nl.OpenAt(s.Netns)
	if err != nil {
		return nil, fmt.Errorf("open network namespace of the pod: %w", err)
	}
	// The changes to the pod's eth0 must never reach the host's eth0.
	if err := different(h, pod); err != nil {
		return nil, errors.Join(fmt.Errorf("network namespace %s: %w", s.Netns, err), pod.Close())
	}
	return pod, nil
}

// different returns an error if the pod's namespace is the host's.
func different(h, pod *nl.Handle) error {
	outside, err := h.Identity()
	if err != nil {
		return err
	}
	inside, err := pod.Identity()
	if err != nil {
		return err
	}
	if inside == outside {
		return fmt.Errorf("%w: it is the host's own", ErrSpec)
	}
	return nil
}

// pair is a pod's device while it is created or checked.
type pair struct {
	spec         Spec
	host, pod    *nl.Handle
	outer, inner nl.Link
}

// step is one change of the kernel's state: a killed daemon stops between two steps.
type step struct {
	what string
	do   func() error
}

func (p *pair) result() Result {
	return Result{HostIndex: p.outer.Index, HostMAC: HostMAC(), PodMAC: PodMAC(p.spec.Addresses)}
}

// make does the steps, and removes the device if one of them fails.
func (p *pair) make(steps []step) error {
	for _, s := range steps {
		if err := s.do(); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", s.what, err), p.host.DeleteLink(p.spec.HostIfName))
		}
	}
	return nil
}

// clear removes what is in the way: the remains of an earlier attempt, or a foreign device
// with the name of the pod's device.
func (p *pair) clear() error {
	return errors.Join(p.host.DeleteLink(p.spec.HostIfName), p.pod.DeleteLink(p.spec.IfName))
}

// steps returns the steps that create the device. The host's end comes up before the pod's,
// and is complete by then: the first packet that the pod can send gets an answer.
func (p *pair) steps(ctx context.Context) []step {
	steps := []step{
		{"add device", p.add},
		{"attach programs", func() error { return p.spec.onCreate(p.outer.Index) }},
		{"tune the pod's end", func() error { return tune(p.pod, p.innerSettings()) }},
		{"tune the host's end", func() error { return tune(p.host, p.outerSettings()) }},
		{"set the pod's loopback up", func() error { return p.pod.SetLink(loopback, nl.LinkSettings{State: nl.Up}) }},
	}
	for _, a := range p.spec.Addresses {
		steps = append(steps, step{"give the pod its address", func() error { return p.pod.EnsureAddress(p.inner.Index, host(a)) }})
	}
	steps = append(steps,
		step{"set the host's end up", func() error { return p.host.SetLink(p.outer.Index, nl.LinkSettings{State: nl.Up}) }},
		step{"set the pod's end up", func() error { return p.pod.SetLink(p.inner.Index, nl.LinkSettings{State: nl.Up}) }},
	)
	mac := PodMAC(p.spec.Addresses)
	for _, a := range p.spec.Addresses {
		steps = append(steps,
			step{"tell the host its neighbour", func() error { return p.host.EnsureNeighbor(p.outer.Index, a, mac) }},
			step{"route to the pod", func() error { return p.host.ReplaceRoute(outer(a, p.outer.Index)) }},
			step{"tell the pod its neighbour", func() error { return p.pod.EnsureNeighbor(p.inner.Index, Gateway(a), HostMAC()) }},
			step{"route from the pod", func() error { return p.pod.ReplaceRoute(inner(a, p.inner.Index)) }},
		)
	}
	return append(steps, step{"wait for the kernel", func() error { return p.settle(ctx) }})
}

// add creates both ends, each in its namespace.
func (p *pair) add() error {
	link, err := p.host.AddVeth(nl.Veth{
		Name: p.spec.HostIfName, MAC: HostMAC(), Alias: p.spec.alias(), Group: DeviceGroup, MTU: p.spec.MTU,
		PeerName: p.spec.IfName, PeerMAC: PodMAC(p.spec.Addresses), PeerNetns: p.spec.Netns,
	})
	p.outer, p.inner.Index = link, link.PeerIndex
	return err
}
