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
	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/cni/ipam"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/observe"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/policy"
)

// serveObserver answers those who watch what the data path decides.
func (d *daemon) serveObserver(ctx context.Context, objects *kube.Objects) error {
	l, err := cni.Listen(filepath.Join(d.cfg.RunDir, observe.SocketName))
	if err != nil {
		return err
	}
	hub := observe.NewHub(verdicts{d.datapath}, d.log)
	server := &observe.Server{
		Hub: hub, Tables: d.datapath.PolicyTables, Logger: d.log,
		Observer: &observe.Observer{
			Node: d.cfg.NodeName, Names: sights{objects, d.pods.leases, d.cfg.NodeName}, Rules: objects, Lane: d.network.laneTo,
		},
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return hub.Run(ctx) })
	group.Go(func() error { return server.Serve(ctx, l) })
	return group.Wait()
}

// verdicts is the data path as a source of flows.
type verdicts struct{ *bpf.Datapath }

// Watch implements observe.Source. What the data path reported to those who
// watched before, and nobody has read, is left out.
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

// sights knows whose an address is. Of this node's pods the leases know it before
// the API does: a pod's status comes after its first packets.
type sights struct {
	*kube.Objects
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

// laneTo says what carries packets to another node; nil if that is no peer.
func (n *network) laneTo(node string) *observe.Lane {
	v := n.seen.Load()
	if v == nil {
		return nil
	}
	i := slices.IndexFunc(v.peers, func(j judged) bool { return j.node.Name == node })
	if i < 0 {
		return nil
	}
	l := &observe.Lane{Peer: node, Kind: string(n.cfg.Lane), Encrypted: n.cfg.Lane != overlay.VXLAN}
	if n.rotator != nil {
		if shown := n.rotator.Shown(); shown != nil {
			slot := shown.Decision.Peers[v.peers[i].node.UID].Active
			l.OwnGeneration, l.PeerGeneration = slot.Own, slot.Peer
		}
	}
	return l
}
