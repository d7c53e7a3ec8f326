// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/readiness"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/overlay"
)

// pass makes this host follow one snapshot, and returns when to look again. A light
// pass leaves alone what only others can have changed.
//
// Its first act is to take peers off the tunnels that nothing vouches for any more.
// Whatever fails before or after, they are gone.
func (l *Loop) pass(ctx context.Context, snap cluster.Snapshot, light bool) (time.Duration, error) {
	self, unfit := findSelf(snap, l.Node)
	fromDisk := l.Checkpoint.FromDisk()
	l.State.Report(readiness.Node, cmp.Or(unfit, fromDisk))
	v := &View{Self: self, ClusterRanges: l.Checkpoint.Basis().ClusterCIDRs, FromDisk: fromDisk != nil}
	if unfit != nil {
		v.Self = l.formerSelf()
	}
	unverified := l.security.verify(ctx, snap, v, unfit == nil)
	lanes, unread := l.Lanes.Observe() // those that can be read
	cut := l.cut(lanes, vouched(v.Peers))
	if unread != nil {
		unread = fmt.Errorf("read lanes: %w", unread)
	}
	l.noteRevocations(v, errors.Join(unread, cut))
	if err := errors.Join(unfit, unverified, unread); err != nil {
		return 0, errors.Join(cut, err)
	}
	next, err := l.adapt(ctx, scene{snap, lanes, light}, v)
	return next, errors.Join(cut, err)
}

// formerSelf is this node as it was last known.
func (l *Loop) formerSelf() kube.Node {
	if old := l.View(); old != nil {
		return old.Self
	}
	n := l.Checkpoint.Basis().Self
	return kube.Node{Name: l.Node, UID: n.ID.UID, PodCIDRs: n.PodCIDRs, Addresses: n.Addresses}
}

// noteRevocations records the list that the lanes follow: that of v, unless the cut has
// failed. A pass that fails later follows it all the same.
func (l *Loop) noteRevocations(v *View, failed error) {
	old := l.View()
	switch {
	case failed != nil && old != nil:
		v.Revocations = old.Revocations
	case failed != nil:
		v.Revocations = 0
	case old != nil && old.Revocations != v.Revocations:
		now := *old
		now.Revocations = v.Revocations
		l.view.Store(&now)
	}
}

// scene is what a pass acts on.
type scene struct {
	snap  cluster.Snapshot
	lanes []overlay.TunnelState // as the pass has found them
	light bool
}

// adapt makes a plan for the peers of v, and the host follow it.
func (l *Loop) adapt(ctx context.Context, now scene, v *View) (time.Duration, error) {
	if err := l.Ranges.SetPrefixes(v.Self.PodCIDRs); err != nil {
		return 0, fmt.Errorf("use pod ranges of node %s: %w", v.Self.Name, err)
	}
	host, err := l.observe()
	if err != nil {
		return 0, err
	}
	mtu, err := host.underlayMTU(v.Self.Addresses)
	if err != nil {
		return 0, err
	}
	s, err := l.security.step(ctx, now, v)
	if err != nil {
		return 0, err
	}
	cfg := l.overlayConfig(v, mtu, s.generations)
	cfg.Reserved = reserved(l.Rules.ServiceCIDRs, now.snap.APIServer)
	if v.Plan, err = overlay.Compute(cfg, s.peers); err != nil {
		return 0, fmt.Errorf("plan lanes: %w", err)
	}
	l.State.SetMTU(v.Plan.MTU)
	if err := l.follow(ctx, now, v, host); err != nil {
		return 0, err
	}
	if s.commit() {
		return 0, nil
	}
	return s.next, nil
}

func (l *Loop) overlayConfig(v *View, mtu int, generations []uint64) overlay.Config {
	return overlay.Config{
		Kind: l.Plan.Encapsulation, AllowPlaintext: l.Plan.AllowPlaintext, Self: keymgr.NodeID{Name: v.Self.Name, UID: v.Self.UID},
		Addresses: v.Self.Addresses, PodCIDRs: v.Self.PodCIDRs, ClusterCIDRs: v.ClusterRanges, BasePort: l.Plan.BasePort,
		UnderlayMTU: mtu, MTU: l.Plan.MTU, Generations: generations, Ports: l.Plan.Ports,
	}
}

// reserved returns the ranges of Services and the API server's addresses.
func reserved(services []netip.Prefix, servers []netip.Addr) []netip.Prefix {
	out := slices.Clone(services)
	for _, a := range servers {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

// follow applies the plan of a view and makes the view the newest. Peers that are verified
// and contradict others have no lane: they are cut before anything can fail.
func (l *Loop) follow(ctx context.Context, now scene, v *View, host host) (err error) {
	cut := l.cut(now.lanes, admitted(v))
	old := l.View()
	if now.light && old != nil && v.Plan.EqualButPeers(l.applied) {
		v.Uplinks = old.Uplinks
		err = l.Lanes.Apply(ctx, v.Plan)
	} else {
		v.Uplinks, err = l.apply(ctx, v, host)
		l.applyTime = time.Now()
	}
	if err = errors.Join(cut, err); err != nil {
		l.applied = overlay.Plan{}
	} else {
		l.applied = v.Plan
	}
	l.view.Store(v)
	return err
}

func findSelf(snap cluster.Snapshot, name string) (kube.Node, error) {
	i := slices.IndexFunc(snap.Nodes, func(n kube.Node) bool { return n.Name == name })
	switch {
	case i < 0:
		return kube.Node{}, fmt.Errorf("no Node object %q: --node-name must be the name that the kubelet registered", name)
	case len(snap.Nodes[i].PodCIDRs) == 0:
		return kube.Node{}, fmt.Errorf("node %s: %w", name, errNoPodCIDR)
	case len(snap.Nodes[i].Addresses) == 0:
		return kube.Node{}, fmt.Errorf("node %s: no InternalIP in status.addresses: the kubelet must report one (--node-ip)", name)
	}
	return snap.Nodes[i], nil
}
