// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package podserver carries out what the container runtime asks for through the
// CNI plugin: it leases a pod's addresses, makes its devices, puts the data
// path's programs on them and has its policies enforced before it returns.
package podserver

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
	"github.com/sealane/sealane/daemonset/readiness"
	"github.com/sealane/sealane/internal/nl"
)

// Datapath is what the server needs of the eBPF data path. *bpf.Datapath is one.
type Datapath interface {
	AttachPod(bpf.Device) error
	Detach(bpf.Device) error
	SetEndpoint(netip.Addr, bpf.Endpoint) error
	DeleteEndpoint(netip.Addr) error
}

// Enforcer brings the policies of a pod into force. *enforce.Enforcer is one.
type Enforcer interface {
	Attach(ctx context.Context, pod cni.PodRef, addresses []netip.Addr) error
	Detach(addresses []netip.Addr)
	Restore([]enforce.Attachment)
}

// policyPatience is how long an Add waits until it is known which policies
// select the pod. The kubelet that asks has the pod from the same API server, so
// its object is there.
const policyPatience = 20 * time.Second

// Config is what a Server is made of.
type Config struct {
	Leases   *ipam.Allocator
	Links    *nl.Handle
	Datapath Datapath
	Enforcer Enforcer
	State    *readiness.State
	Logger   *slog.Logger
}

// Server connects and disconnects this node's pods. It is the cni.Handler, and
// safe for concurrent use.
type Server struct {
	leases   *ipam.Allocator
	links    *nl.Handle
	remover  *podnet.Remover
	datapath Datapath
	enforcer Enforcer
	state    *readiness.State
	log      *slog.Logger
}

// New returns a Server. Call Recall before the first request if an earlier
// daemon may have connected pods.
func New(c Config) *Server {
	return &Server{
		leases: c.Leases, links: c.Links, remover: podnet.NewRemover(c.Links), datapath: c.Datapath, enforcer: c.Enforcer, state: c.State, log: c.Logger,
	}
}

func ownerOf(a cni.Attachment) ipam.Owner {
	return ipam.Owner{ContainerID: a.ContainerID, IfName: a.IfName}
}

// Add connects a pod. When it returns, the pod's device is up, the data path's
// programs are on it, and its policies in force; after an error nothing is left.
func (s *Server) Add(ctx context.Context, a cni.Attachment) (*types100.Result, error) {
	mtu, err := s.state.PodMTU()
	if err != nil {
		return nil, err
	}
	lease, err := s.leases.Allocate(ownerOf(a), ipam.Meta{
		Namespace: a.Pod.Namespace, Name: a.Pod.Name, UID: a.Pod.UID, Netns: a.Netns, Network: a.Network,
	})
	if err != nil {
		// Pods that end make room: the runtime should come again.
		return nil, &cni.Error{Code: cnitypes.ErrTryAgainLater, Err: fmt.Errorf("lease address for %s: %w", a.Pod, err)}
	}
	spec := podnet.Spec{Owner: lease.Owner, Netns: a.Netns, IfName: a.IfName, HostIfName: podnet.HostName(lease.Owner), Addresses: lease.Addresses, MTU: mtu}
	made, err := s.connect(ctx, a.Pod, spec)
	if err != nil {
		err = errors.Join(fmt.Errorf("connect %s: %w", a.Pod, err), s.remove(lease.Owner, lease.Addresses))
		if errors.Is(err, enforce.ErrNotKnown) {
			err = &cni.Error{Code: cnitypes.ErrTryAgainLater, Err: err}
		}
		return nil, err
	}
	s.log.Info("pod connected", "pod", a.Pod.String(), "addresses", lease.Addresses, "device", spec.HostIfName)
	return resultOf(a, spec, made), nil
}

// connect makes the device while the policies are brought into the data path,
// which lets nothing through meanwhile.
func (s *Server) connect(ctx context.Context, pod cni.PodRef, spec podnet.Spec) (made podnet.Result, err error) {
	group, waiting := errgroup.WithContext(ctx)
	group.Go(func() error {
		waiting, cancel := context.WithTimeout(waiting, policyPatience)
		defer cancel()
		return s.enforcer.Attach(waiting, pod, spec.Addresses)
	})
	// The host's stack would deliver to a device without programs, and a program
	// that knows no endpoint would take the pod's address for one of elsewhere.
	spec.OnCreate = func(index int) error {
		if err := s.introduce(index, spec.Addresses); err != nil {
			return err
		}
		return s.datapath.AttachPod(bpf.Device{Index: index, Name: spec.HostIfName})
	}
	group.Go(func() (err error) {
		made, err = podnet.Connect(ctx, s.links, spec)
		return err
	})
	err = group.Wait()
	return made, errors.Join(err, ctx.Err()) // the runtime that asked may be gone, and will not keep what it never heard of
}

// introduce makes a pod's addresses known to the data path.
func (s *Server) introduce(index int, addresses []netip.Addr) error {
	for _, a := range addresses {
		if err := s.datapath.SetEndpoint(a, bpf.Endpoint{Index: index, MAC: podnet.PodMAC(addresses)}); err != nil {
			return err
		}
	}
	return nil
}

// remove takes away all that belongs to an owner, device before address, so
// that an address is free only when nothing points to it.
func (s *Server) remove(owner ipam.Owner, addresses []netip.Addr) error {
	var errs []error
	for _, a := range addresses {
		errs = append(errs, s.datapath.DeleteEndpoint(a))
	}
	name := podnet.HostName(owner)
	errs = append(errs, s.remover.Disconnect(name), s.datapath.Detach(bpf.Device{Name: name}))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.enforcer.Detach(addresses)
	return s.leases.Release(owner)
}

// Del disconnects a pod; what never was is no error.
func (s *Server) Del(_ context.Context, a cni.Attachment) error {
	owner := ownerOf(a)
	lease, _ := s.leases.Lease(owner)
	if err := s.remove(owner, lease.Addresses); err != nil {
		return fmt.Errorf("disconnect %s: %w", a.Pod, err)
	}
	s.log.Info("pod disconnected", "pod", a.Pod.String(), "addresses", lease.Addresses)
	return nil
}

// Check compares a pod's network with what Add made and told: new pods may have
// another MTU by now.
func (s *Server) Check(_ context.Context, a cni.Attachment) error {
	owner := ownerOf(a)
	lease, ok := s.leases.Lease(owner)
	if !ok {
		return fmt.Errorf("check %s: no address is leased to container %s; delete the pod, so that its controller creates it again", a.Pod, a.ContainerID)
	}
	spec := podnet.Spec{Owner: owner, Netns: a.Netns, IfName: a.IfName, HostIfName: podnet.HostName(owner), Addresses: lease.Addresses, MTU: cni.PodMTU(a)}
	if err := podnet.Check(s.links, spec); err != nil {
		return fmt.Errorf("check %s: %w", a.Pod, err)
	}
	return nil
}

// Status tells the runtime whether an Add would work now.
func (s *Server) Status(context.Context) error {
	_, err := s.state.PodMTU()
	return err
}

// GC disconnects every pod of the network that the runtime does not know. A pod
// that was connected after the runtime made its list is too young to be stale.
func (s *Server) GC(_ context.Context, network string, valid []cni.AttachmentID) error {
	known := map[ipam.Owner]bool{}
	for _, v := range valid {
		known[ipam.Owner{ContainerID: v.ContainerID, IfName: v.IfName}] = true
	}
	stale := s.leases.Stale(func(l ipam.Lease) bool { return l.Meta.Network != network || known[l.Owner] })
	var errs []error
	for _, l := range stale {
		errs = append(errs, s.remove(l.Owner, l.Addresses))
	}
	return errors.Join(errs...)
}

// resultOf is what the runtime is told of a connected pod.
func resultOf(a cni.Attachment, spec podnet.Spec, made podnet.Result) *types100.Result {
	var ips []cni.IP
	for _, addr := range spec.Addresses {
		ips = append(ips, cni.IP{Addr: addr, Gateway: podnet.Gateway(addr)})
	}
	return cni.NewResult(a,
		cni.Device{Name: spec.HostIfName, MAC: made.HostMAC, MTU: spec.MTU},
		cni.Device{Name: spec.IfName, MAC: made.PodMAC, MTU: spec.MTU}, ips)
}
