// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package network

import (
	"cmp"
	"context"
	"fmt"
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
func (l *Loop) pass(ctx context.Context, snap cluster.Snapshot, light bool) (time.Duration, error) {
	self, err := findSelf(snap, l.Node)
	fromDisk := l.Checkpoint.FromDisk()
	l.State.Report(readiness.Node, cmp.Or(err, fromDisk))
	if err != nil {
		return 0, err
	}
	if err := l.Ranges.SetPrefixes(self.PodCIDRs); err != nil {
		return 0, fmt.Errorf("use pod ranges of node %s: %w", self.Name, err)
	}
	v := &View{Self: self, ClusterRanges: l.Checkpoint.Basis().ClusterCIDRs, FromDisk: fromDisk != nil}
	host, err := l.observe()
	if err != nil {
		return 0, err
	}
	mtu, err := host.underlayMTU(self.Addresses)
	if err != nil {
		return 0, err
	}
	s, err := l.security.step(ctx, snap, v)
	if err != nil {
		return 0, err
	}
	if v.Plan, err = overlay.Compute(l.overlayConfig(v, mtu, s.generations), s.peers); err != nil {
		return 0, fmt.Errorf("plan lanes: %w", err)
	}
	l.State.SetMTU(v.Plan.MTU)
	if err := l.follow(ctx, v, host, light); err != nil {
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
		UnderlayMTU: mtu, MTU: l.Plan.MTU, Generations: generations,
	}
}

// follow applies the plan of a view and makes the view the newest.
func (l *Loop) follow(ctx context.Context, v *View, host host, light bool) (err error) {
	old := l.View()
	if light && old != nil && v.Plan.EqualButPeers(l.applied) {
		v.Uplinks = old.Uplinks
		err = l.Lanes.Apply(ctx, v.Plan)
	} else {
		v.Uplinks, err = l.apply(ctx, v, host)
		l.applyTime = time.Now()
	}
	l.applied = v.Plan
	if err != nil {
		l.applied, v.Revocations = overlay.Plan{}, 0
		if old != nil {
			v.Revocations = old.Revocations // the newest list is not followed yet
		}
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
