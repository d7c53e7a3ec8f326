// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/cni/ipam"
	"github.com/sealane/sealane/daemonset/kube/objects"
	"github.com/sealane/sealane/daemonset/network"
	"github.com/sealane/sealane/daemonset/observe"
	"github.com/sealane/sealane/daemonset/trust"
	"github.com/sealane/sealane/internal/unixsocket"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/policy"
)

// serveObserver answers sealane monitor and sealane policy explain.
func (d *daemon) serveObserver(ctx context.Context, watched *objects.Objects) error {
	l, err := unixsocket.Listen(filepath.Join(d.cfg.RunDir, observe.SocketName))
	if err != nil {
		return err
	}
	hub := observe.NewHub(verdicts{d.datapath}, d.log)
	server := &observe.Server{
		Hub: hub, Tables: d.datapath.PolicyTables, Logger: d.log,
		Observer: &observe.Observer{
			Node: d.cfg.NodeName, Names: sights{watched, d.leases, d.cfg.NodeName}, Rules: watched,
			Lane: func(node string) *observe.Lane { return d.laneTo(d.network.View(), node) },
		},
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return hub.Run(ctx) })
	group.Go(func() error { return server.Serve(ctx, l) })
	return group.Wait()
}

// verdicts is the data path as a source of flows.
type verdicts struct{ *bpf.Datapath }

// Watch implements observe.Source. It leaves out what the data path reported to
// earlier watchers and nobody has read.
func (v verdicts) Watch(ctx context.Context, f func(observe.Flow)) error {
	began := time.Now()
	return v.WatchVerdicts(ctx, func(x bpf.Verdict) {
		if x.Time.Before(began) {
			return
		}
		flow := observe.Flow{
			Time: x.Time, Source: x.Source, Destination: x.Destination, Frontend: x.Frontend,
			Protocol: x.Protocol, Verdict: x.Kind.String(), Lost: uint64(x.Lost),
		}
		if x.Kind != bpf.VerdictAllowed {
			flow.Reason = x.Reason.String()
		}
		f(flow)
	})
}

// sights knows whose an address is. The leases know this node's pods before the API
// does: a pod's status is written after its first packets.
type sights struct {
	*objects.Objects
	leases *ipam.Allocator
	node   string
}

// PodAt implements observe.Names.
func (s sights) PodAt(address netip.Addr) (policy.Pod, bool) {
	for _, l := range s.leases.Leases() {
		if !slices.Contains(l.Addresses, address) {
			continue
		}
		if pod, ok := s.Pod(l.Meta.Namespace, l.Meta.Name); ok && pod.Node == s.node {
			pod.Pod.Addresses = l.Addresses
			return pod.Pod, true
		}
	}
	pod, ok := s.Objects.PodAt(address)
	return pod.Pod, ok
}

// laneTo describes what carries packets to another node; nil if that is no peer.
func (d *daemon) laneTo(v *network.View, node string) *observe.Lane {
	if v == nil {
		return nil
	}
	i := slices.IndexFunc(v.Peers, func(p trust.Result) bool { return p.Node.Name == node })
	if i < 0 {
		return nil
	}
	l := &observe.Lane{Peer: node, Kind: string(d.cfg.Lane), Encrypted: d.cfg.Lane != overlay.VXLAN}
	if d.keys != nil {
		if shown := d.keys.Rotator.Shown(); shown != nil {
			slot := shown.Decision.Peers[v.Peers[i].Node.UID].Active
			l.OwnGeneration, l.PeerGeneration = slot.Own, slot.Peer
		}
	}
	return l
}
