// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/cni/ipam"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/overlay"
)

const (
	// resync bounds how long a change that nobody told of goes unrepaired.
	resync = 30 * time.Second
	// linkPause spaces passes that only the kernel's news ask for: each pod that
	// comes or goes is news.
	linkPause = time.Second
	// retryPause spaces passes after one that failed.
	retryPause = 2 * time.Second
)

// applier is a part of the host that can be made to follow a plan.
type applier interface {
	Apply(context.Context, overlay.Plan) error
}

// forwarding is what the network loop needs of the data path.
type forwarding interface {
	AttachLane(bpf.Device, bpf.Encapsulation) error
	AttachUplink(bpf.Device, bpf.Encapsulation) error
	SyncForwards([]bpf.Forward) error
	Keep(names map[string]bool) error
}

// view is what the network loop knows after a pass, for status.
type view struct {
	self    kube.Node
	plan    overlay.Plan
	peers   []judged
	uplinks []string
	cluster []netip.Prefix
}

// network turns snapshots of the cluster into the state of this host.
type network struct {
	cfg      Config
	trust    *trust // nil: plaintext lanes, no keys
	leases   *ipam.Allocator
	pods     *pods
	links    *nl.Handle
	datapath forwarding
	lanes    overlay.Backend
	host     applier
	state    *state
	cluster  []netip.Prefix // pod ranges of the whole cluster, as far as known at start
	// restarted tells that lanes have to be made again; nil: never.
	restarted <-chan struct{}
	log       *slog.Logger

	seen atomic.Pointer[view]
}

// run makes a pass whenever something may have changed, until ctx ends.
func (n *network) run(ctx context.Context, watch *kube.Watcher) error {
	links, err := n.links.Watch(ctx)
	if err != nil {
		return fmt.Errorf("watch devices: %w", err)
	}
	var own <-chan struct{}
	if n.trust != nil {
		own = n.trust.changed
	}
	timer := time.NewTimer(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-watch.Changed():
		case <-own:
		case <-n.restarted:
		case _, ok := <-links:
			if !ok {
				return ctx.Err()
			}
			if !pause(ctx, linkPause, watch.Changed(), own) {
				return nil
			}
		case <-timer.C:
		}
		snap, synced := watch.Snapshot()
		if !synced {
			continue
		}
		err := n.pass(ctx, snap)
		n.state.report(partNetwork, err)
		next := resync
		if err != nil && ctx.Err() == nil {
			n.log.Error("network not as planned", "error", err)
			next = retryPause
		}
		timer.Reset(next)
	}
}

// pause waits, but for more urgent news; false: ctx ended.
func pause(ctx context.Context, d time.Duration, urgent ...<-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	case <-urgent[0]:
	case <-urgent[1]:
	}
	return true
}

// pass makes this host follow one snapshot.
func (n *network) pass(ctx context.Context, snap kube.Snapshot) error {
	self, err := findSelf(snap, n.cfg.NodeName)
	n.state.report(partNode, err)
	if err != nil {
		return err
	}
	if err := n.leases.SetPrefixes(self.PodCIDRs); err != nil {
		return fmt.Errorf("use pod ranges of node %s: %w", self.Name, err)
	}
	n.pods.repair(snap.LocalPods)
	v := &view{self: self, cluster: n.cluster}
	cfg, err := n.config(self)
	if err != nil {
		return err
	}
	if n.trust == nil {
		v.peers = plainPeers(snap, self.Name)
	} else {
		if cfg.Generations, err = n.trust.follow(self, snap); err != nil {
			return err
		}
		v.peers = n.trust.judge.pass(ctx, snap, self.Name)
	}
	v.plan, err = overlay.Compute(cfg, overlayPeers(v.peers, self))
	if err != nil {
		return fmt.Errorf("plan lanes: %w", err)
	}
	n.state.setMTU(v.plan.MTU)
	v.uplinks, err = n.apply(ctx, v.plan, self)
	n.seen.Store(v)
	return err
}

// errNoPodCIDR is a cluster that gives its nodes no pod ranges.
var errNoPodCIDR = errors.New("spec.podCIDRs is empty: kube-controller-manager must run with --allocate-node-cidrs and --cluster-cidr")

func findSelf(snap kube.Snapshot, name string) (kube.Node, error) {
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

func (n *network) config(self kube.Node) (overlay.Config, error) {
	mtu, err := n.underlayMTU(self.Addresses)
	if err != nil {
		return overlay.Config{}, err
	}
	return overlay.Config{
		Kind: n.cfg.Lane, AllowPlaintext: n.cfg.InsecurePlaintext, Self: keymgr.NodeID{Name: self.Name, UID: self.UID},
		Addresses: self.Addresses, PodCIDRs: self.PodCIDRs, ClusterCIDRs: n.cluster, BasePort: n.cfg.LanePort,
		UnderlayMTU: mtu, MTU: n.cfg.MTU,
	}, nil
}

func plainPeers(snap kube.Snapshot, self string) []judged {
	var all []judged
	for _, node := range snap.Nodes {
		if node.Name != self {
			all = append(all, judged{node: node})
		}
	}
	return all
}

// overlayPeers gives every other node to the plan; one without a verified key
// gets no lane there, and its addresses are refused.
func overlayPeers(all []judged, self kube.Node) []overlay.Peer {
	var peers []overlay.Peer
	for _, j := range all {
		p := overlay.Peer{
			ID: keymgr.NodeID{Name: j.node.Name, UID: j.node.UID}, Keys: j.peer.Keys,
			Addresses: j.node.Addresses, PodCIDRs: j.node.PodCIDRs,
		}
		from := j.node.Addresses
		if len(p.Keys) > 0 {
			from, p.PodCIDRs = j.peer.Endpoints, j.peer.PodCIDRs
		}
		p.Endpoint = sameFamily(from, self.Addresses)
		peers = append(peers, p)
	}
	return peers
}

// sameFamily picks the address of the first family that both ends have, in the
// order of own, so that both ends of a pair pick the same one as long as their
// kubelets agree on the primary family.
func sameFamily(from, own []netip.Addr) netip.Addr {
	for _, mine := range own {
		for _, a := range from {
			if a.Is4() == mine.Is4() {
				return a
			}
		}
	}
	return netip.Addr{}
}

// apply brings the plan to the host in an order that never leaves a lane
// without its programs: devices, programs, forwarding, routes, and only then
// the peers of devices that are new.
func (n *network) apply(ctx context.Context, plan overlay.Plan, self kube.Node) ([]string, error) {
	uplinks, err := n.guardUplinks(self.Addresses)
	if err != nil {
		return nil, err
	}
	if staged, missing, err := n.withoutNewPeers(plan); err != nil {
		return uplinks, err
	} else if missing {
		if err := n.lanes.Apply(ctx, staged); err != nil {
			return uplinks, fmt.Errorf("make lanes: %w", err)
		}
	}
	index, err := n.attachLanes(plan)
	if err != nil {
		return uplinks, err
	}
	if err := n.datapath.SyncForwards(forwards(plan, index)); err != nil {
		return uplinks, err
	}
	if err := n.host.Apply(ctx, plan); err != nil {
		return uplinks, fmt.Errorf("apply routes: %w", err)
	}
	if err := n.lanes.Apply(ctx, plan); err != nil {
		return uplinks, fmt.Errorf("apply lanes: %w", err)
	}
	return uplinks, n.forgetGone()
}

func (n *network) withoutNewPeers(plan overlay.Plan) (overlay.Plan, bool, error) {
	missing := false
	plan.Lanes = slices.Clone(plan.Lanes)
	for i, l := range plan.Lanes {
		_, err := n.links.LinkByName(l.Device)
		if err == nil {
			continue
		}
		if !errors.Is(err, nl.ErrNotFound) {
			return plan, false, err
		}
		missing = true
		plan.Lanes[i].Peers = nil
	}
	return plan, missing, nil
}

func (n *network) attachLanes(plan overlay.Plan) (map[string]int, error) {
	index := map[string]int{}
	for _, l := range plan.Lanes {
		link, err := n.links.LinkByName(l.Device)
		if err != nil {
			return nil, fmt.Errorf("find lane: %w", err)
		}
		index[l.Device] = link.Index
		if err := n.datapath.AttachLane(bpf.Device{Index: link.Index, Name: l.Device}, encapsulation(plan.Kind)); err != nil {
			return nil, err
		}
	}
	return index, nil
}

func encapsulation(k overlay.Kind) bpf.Encapsulation {
	if k == overlay.VXLAN {
		return bpf.L2
	}
	return bpf.L3
}

// forwards is the plan's forwarding table as the data path has it. The kinds
// have the same numbers in both packages, which a test compares.
func forwards(plan overlay.Plan, index map[string]int) []bpf.Forward {
	var all []bpf.Forward
	for _, f := range plan.Forward {
		all = append(all, bpf.Forward{
			Prefix: f.Prefix, Kind: bpf.ForwardKind(f.Kind), Index: index[f.Device],
			Encapsulation: encapsulation(plan.Kind), Remote: f.Remote,
		})
	}
	return all
}

// forgetGone drops the pins of devices that no longer exist.
func (n *network) forgetGone() error {
	all, err := n.links.Links()
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for _, l := range all {
		names[l.Name] = true
	}
	return n.datapath.Keep(names)
}
