// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	cnitypes "github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sync/errgroup"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/cni/ipam"
	"github.com/sealane/sealane/cni/podnet"
	"github.com/sealane/sealane/daemonset/enforce"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/internal/nl"
)

// endpoints is what the pods' side needs of the data path.
type endpoints interface {
	AttachPod(bpf.Device) error
	Detach(bpf.Device) error
	SetEndpoint(netip.Addr, bpf.Endpoint) error
	DeleteEndpoint(netip.Addr) error
}

// guards is who lets policies decide what gets in and out of a pod.
type guards interface {
	Attach(ctx context.Context, pod cni.PodRef, addresses []netip.Addr) error
	Detach(addresses []netip.Addr)
	Restore([]enforce.Attachment)
}

// policyPatience is how long an Add waits until it is known which policies
// select the pod: the kubelet, which has asked, has had its object from the same
// API server.
const policyPatience = 20 * time.Second

// pods connects this node's pods: it is the cni.Handler.
type pods struct {
	leases   *ipam.Allocator
	links    *nl.Handle
	remover  *podnet.Remover
	datapath endpoints
	guards   guards
	state    *state
	log      *slog.Logger
	// recalled is how many pods an earlier daemon has connected.
	recalled int
}

func ownerOf(a cni.Attachment) ipam.Owner {
	return ipam.Owner{ContainerID: a.ContainerID, IfName: a.IfName}
}

// Add connects a pod. When it returns, the pod's device is up, the data path's
// programs are on it, and its policies in force; after an error nothing is left.
func (p *pods) Add(ctx context.Context, a cni.Attachment) (*types100.Result, error) {
	mtu, err := p.state.podMTU()
	if err != nil {
		return nil, err
	}
	lease, err := p.leases.Allocate(ownerOf(a), ipam.Meta{
		Namespace: a.Pod.Namespace, Name: a.Pod.Name, UID: a.Pod.UID, Netns: a.Netns, Network: a.Network,
	})
	if err != nil {
		// Pods that end make room: the runtime should come again.
		return nil, &cni.Error{Code: cnitypes.ErrTryAgainLater, Err: fmt.Errorf("lease address for %s: %w", a.Pod, err)}
	}
	spec := podnet.Spec{Owner: lease.Owner, Netns: a.Netns, IfName: a.IfName, HostIfName: podnet.HostName(lease.Owner), Addresses: lease.Addresses, MTU: mtu}
	made, err := p.connect(ctx, a.Pod, spec)
	if err != nil {
		err = errors.Join(fmt.Errorf("connect %s: %w", a.Pod, err), p.remove(lease.Owner, lease.Addresses))
		if errors.Is(err, enforce.ErrNotKnown) {
			err = &cni.Error{Code: cnitypes.ErrTryAgainLater, Err: err}
		}
		return nil, err
	}
	p.log.Info("pod connected", "pod", a.Pod.String(), "addresses", lease.Addresses, "device", spec.HostIfName)
	return resultOf(a, spec, made), nil
}

// connect makes the device while the policies are brought into the data path,
// which lets nothing through meanwhile.
func (p *pods) connect(ctx context.Context, pod cni.PodRef, spec podnet.Spec) (made podnet.Result, err error) {
	group, waiting := errgroup.WithContext(ctx)
	group.Go(func() error {
		waiting, cancel := context.WithTimeout(waiting, policyPatience)
		defer cancel()
		return p.guards.Attach(waiting, pod, spec.Addresses)
	})
	// The host's stack would deliver to a device without programs, and a program
	// that knows no endpoint would take the pod's address for one of elsewhere.
	spec.Guard = func(index int) error {
		if err := p.introduce(index, spec.Addresses); err != nil {
			return err
		}
		return p.datapath.AttachPod(bpf.Device{Index: index, Name: spec.HostIfName})
	}
	group.Go(func() (err error) {
		made, err = podnet.Connect(p.links, spec)
		return err
	})
	err = group.Wait()
	return made, errors.Join(err, ctx.Err()) // the runtime that asked may be gone, and will not keep what it never heard of
}

// introduce makes a pod's addresses known to the data path.
func (p *pods) introduce(index int, addresses []netip.Addr) error {
	for _, a := range addresses {
		if err := p.datapath.SetEndpoint(a, bpf.Endpoint{Index: index, MAC: podnet.PodMAC(addresses)}); err != nil {
			return err
		}
	}
	return nil
}

// remove takes away all that belongs to an owner, device before address, so
// that an address is free only when nothing points to it.
func (p *pods) remove(owner ipam.Owner, addresses []netip.Addr) error {
	var errs []error
	for _, a := range addresses {
		errs = append(errs, p.datapath.DeleteEndpoint(a))
	}
	name := podnet.HostName(owner)
	errs = append(errs, p.remover.Disconnect(name), p.datapath.Detach(bpf.Device{Name: name}))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	p.guards.Detach(addresses)
	return p.leases.Release(owner)
}

// Del disconnects a pod; what never was is no error.
func (p *pods) Del(_ context.Context, a cni.Attachment) error {
	owner := ownerOf(a)
	lease, _ := p.leases.Lease(owner)
	if err := p.remove(owner, lease.Addresses); err != nil {
		return fmt.Errorf("disconnect %s: %w", a.Pod, err)
	}
	p.log.Info("pod disconnected", "pod", a.Pod.String(), "addresses", lease.Addresses)
	return nil
}

// Check compares a pod's network with what Add made and told: new pods may have
// another MTU by now.
func (p *pods) Check(_ context.Context, a cni.Attachment) error {
	owner := ownerOf(a)
	lease, ok := p.leases.Lease(owner)
	if !ok {
		return fmt.Errorf("check %s: no address is leased to container %s; delete the pod to have it made anew", a.Pod, a.ContainerID)
	}
	spec := podnet.Spec{Owner: owner, Netns: a.Netns, IfName: a.IfName, HostIfName: podnet.HostName(owner), Addresses: lease.Addresses, MTU: cni.PodMTU(a)}
	if err := podnet.Check(p.links, spec); err != nil {
		return fmt.Errorf("check %s: %w", a.Pod, err)
	}
	return nil
}

// Status tells the runtime whether an Add would work now.
func (p *pods) Status(context.Context) error {
	_, err := p.state.podMTU()
	return err
}

// GC disconnects every pod of the network that the runtime does not know. A pod
// that was connected after the runtime made its list is too young to be stale.
func (p *pods) GC(_ context.Context, network string, valid []cni.AttachmentID) error {
	known := map[ipam.Owner]bool{}
	for _, v := range valid {
		known[ipam.Owner{ContainerID: v.ContainerID, IfName: v.IfName}] = true
	}
	stale := p.leases.Stale(func(l ipam.Lease) bool { return l.Meta.Network != network || known[l.Owner] })
	var errs []error
	for _, l := range stale {
		errs = append(errs, p.remove(l.Owner, l.Addresses))
	}
	return errors.Join(errs...)
}

// recall makes known the pods that an earlier daemon connected, and forgets what
// went meanwhile. It replaces no program yet: until policies and lanes are in the
// data path, the earlier daemon's programs have what they need, and ours may not.
func (p *pods) recall(d *bpf.Datapath) error {
	known, err := d.Endpoints()
	if err != nil {
		return err
	}
	var all []enforce.Attachment
	for _, l := range p.leases.Leases() {
		link, err := p.links.LinkByName(podnet.HostName(l.Owner))
		if errors.Is(err, nl.ErrNotFound) {
			continue // the lease waits for its DEL, or for the repair
		}
		if err != nil {
			return err
		}
		if err := p.introduce(link.Index, l.Addresses); err != nil {
			return fmt.Errorf("make %s/%s known again: %w", l.Meta.Namespace, l.Meta.Name, err)
		}
		for _, a := range l.Addresses {
			delete(known, a)
		}
		all = append(all, enforce.Attachment{
			Pod: cni.PodRef{Namespace: l.Meta.Namespace, Name: l.Meta.Name, UID: l.Meta.UID}, Addresses: l.Addresses,
		})
	}
	p.guards.Restore(all)
	p.recalled = len(all)
	var errs []error
	for a := range known {
		errs = append(errs, p.datapath.DeleteEndpoint(a))
	}
	return errors.Join(errs...)
}

// restore puts this daemon's programs on the devices of pods that an earlier one
// connected. Pods notice nothing.
func (p *pods) restore() error {
	for _, l := range p.leases.Leases() {
		name := podnet.HostName(l.Owner)
		link, err := p.links.LinkByName(name)
		if err == nil {
			err = p.datapath.AttachPod(bpf.Device{Index: link.Index, Name: name})
		}
		if err != nil && !p.gone(l.Owner) { // a DEL may come at any moment
			return fmt.Errorf("guard %s/%s again: %w", l.Meta.Namespace, l.Meta.Name, err)
		}
	}
	return nil
}

// gone reports whether an owner has no device.
func (p *pods) gone(owner ipam.Owner) bool {
	_, err := p.links.LinkByName(podnet.HostName(owner))
	return errors.Is(err, nl.ErrNotFound)
}

// repair gives back the addresses of pods that ended without a DEL: their
// device is gone, or the API server has known no such pod for the grace.
func (p *pods) repair(live []kube.Pod) {
	names, uids := map[string]bool{}, map[string]bool{}
	for _, l := range live {
		names[l.Namespace+"/"+l.Name], uids[l.UID] = true, true
	}
	stale := p.leases.Stale(func(l ipam.Lease) bool {
		// A static pod has another UID in the API than the kubelet gives us.
		seen := l.Meta.Name == "" || uids[l.Meta.UID] || names[l.Meta.Namespace+"/"+l.Meta.Name]
		return !p.gone(l.Owner) && !p.leases.Missed(l.Owner, seen)
	})
	for _, l := range stale {
		if err := p.remove(l.Owner, l.Addresses); err != nil {
			p.log.Error("leaked address stays", "addresses", l.Addresses, "error", err)
			continue
		}
		p.log.Warn("leaked address released", "addresses", l.Addresses, "pod", l.Meta.Namespace+"/"+l.Meta.Name)
	}
}

// resultOf is what the runtime is told of a connected pod.
func resultOf(a cni.Attachment, s podnet.Spec, made podnet.Result) *types100.Result {
	var ips []cni.IP
	for _, addr := range s.Addresses {
		ips = append(ips, cni.IP{Addr: addr, Gateway: podnet.Gateway(addr)})
	}
	return cni.NewResult(a,
		cni.Device{Name: s.HostIfName, MAC: made.HostMAC, MTU: s.MTU},
		cni.Device{Name: s.IfName, MAC: made.PodMAC, MTU: s.MTU}, ips)
}
