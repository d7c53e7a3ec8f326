// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"cmp"
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
	"github.com/sealane/sealane/daemonset/picture"
	"github.com/sealane/sealane/daemonset/rotate"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/rotation"
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
	// revocations is the number of the list that the lanes follow.
	revocations uint64
	fromDisk    bool // and not from the API server
}

// network turns snapshots of the cluster into the state of this host.
type network struct {
	cfg      Config
	trust    *trust          // nil: plaintext lanes, no keys
	rotator  *rotate.Rotator // nil: the same
	leases   *ipam.Allocator
	pods     *pods
	links    *nl.Handle
	datapath forwarding
	lanes    overlay.Backend
	host     applier
	state    *state
	keeper   *picture.Keeper
	// restarted tells that lanes have to be made again; nil: never.
	restarted <-chan struct{}
	log       *slog.Logger

	// applied is the plan that the host follows, as of applyTime.
	applied   overlay.Plan
	applyTime time.Time
	seen      atomic.Pointer[view]
}

// run makes a pass whenever something may have changed, until ctx ends.
func (n *network) run(ctx context.Context, watch picture.Watch) error {
	links, err := n.links.Watch(ctx)
	if err != nil {
		return fmt.Errorf("watch devices: %w", err)
	}
	f := feeds{changed: watch.Changed(), confirmed: n.keeper.Confirmed(), links: links, timer: time.NewTimer(0)}
	if n.trust != nil {
		f.own, f.paired, f.results = n.trust.changed, n.rotator.Changed(), n.rotator.Results()
	}
	for {
		what, err := n.await(ctx, f)
		if err != nil || ctx.Err() != nil {
			return err
		}
		snap, synced := n.keeper.Look(watch, n.remembered)
		if !synced || what == nothing {
			continue
		}
		next, err := n.pass(ctx, snap, what == lanesOnly)
		n.state.report(partNetwork, err)
		if err != nil && ctx.Err() == nil {
			n.log.Error("network not as planned", "error", err)
			next, n.applyTime = retryPause, time.Time{} // all of it, then
		}
		if err == nil {
			n.keeper.Keep(snap, n.remembered)
		}
		f.timer.Reset(next)
	}
}

// news is what a pass has to look at.
type news int

const (
	nothing   news = iota
	lanesOnly      // the peers of lanes alone
	everything
)

// feeds are where news come from.
type feeds struct {
	changed   <-chan struct{} // the API server
	confirmed <-chan struct{} // the same, after a start without it
	own       <-chan struct{} // this node's identity
	paired    <-chan struct{} // a peer waits for its preshared key
	results   <-chan rotate.Exchanged
	links     <-chan struct{} // the kernel
	timer     *time.Timer
}

// await returns with the next news, or when ctx ends.
func (n *network) await(ctx context.Context, f feeds) (news, error) {
	select {
	case <-ctx.Done():
	case <-f.changed:
	case <-f.confirmed:
	case <-f.own:
	case <-f.paired:
		return n.renew(ctx, f.timer), nil
	case r := <-f.results:
		n.take(r)
		return n.renew(ctx, f.timer), nil
	case <-n.restarted:
	case _, ok := <-f.links:
		if !ok && ctx.Err() == nil {
			return nothing, errLinks
		}
		f.pause(ctx)
	case <-f.timer.C:
		changed, next := n.glance(ctx)
		if !changed {
			f.timer.Reset(next)
			return nothing, nil
		}
		if time.Since(n.applyTime) < resync {
			return lanesOnly, nil
		}
	}
	return everything, nil
}

// renew brings preshared keys to lanes whose plan stays as it is. In a large
// cluster some exchange ends every second, and a pass for each would be most of
// what the daemon does.
func (n *network) renew(ctx context.Context, timer *time.Timer) news {
	if n.applyTime.IsZero() || len(n.applied.Lanes) == 0 {
		return lanesOnly // the last pass failed: there is no plan to keep
	}
	noted := n.rotator.Noted()
	changed, next := n.glance(ctx)
	if changed {
		return lanesOnly
	}
	if err := n.lanes.Apply(ctx, n.applied); err != nil {
		n.log.Warn("preshared keys not renewed", "error", err)
		return lanesOnly // which says what is wrong, and tries again
	}
	if n.rotator.Renewed(noted) {
		next = 0
	}
	timer.Reset(next)
	return nothing
}

// take lets the next decision know of an exchange that ended, and of all that ended
// by now: in a large cluster a pass takes longer than many exchanges.
func (n *network) take(r rotate.Exchanged) {
	for {
		n.rotator.Take(r)
		select {
		case r = <-n.rotator.Results():
		default:
			return
		}
	}
}

// errLinks is a kernel that tells no news of devices any more.
var errLinks = errors.New("the kernel's news of devices have ended")

// pause lets further news of the kernel come, but for more urgent ones.
func (f feeds) pause(ctx context.Context) {
	t := time.NewTimer(linkPause)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-f.changed:
	case <-f.own:
	case <-f.paired:
	}
}

// glance looks, between passes, whether a rotation or a pairing goes on.
func (n *network) glance(ctx context.Context) (changed bool, next time.Duration) {
	left := resync - time.Since(n.applyTime)
	if n.rotator == nil || left <= 0 {
		return true, 0
	}
	lanes, err := n.lanes.Observe()
	if err != nil {
		return true, 0
	}
	changed, next = n.rotator.Glance(ctx, lanes)
	return changed, min(next, left)
}

// pass makes this host follow one snapshot, and says when to look again. A light
// pass leaves alone what only others could have changed.
func (n *network) pass(ctx context.Context, snap kube.Snapshot, light bool) (time.Duration, error) {
	self, err := findSelf(snap, n.cfg.NodeName)
	fromDisk := n.keeper.FromDisk()
	n.state.report(partNode, cmp.Or(err, fromDisk))
	if err != nil {
		return 0, err
	}
	if err := n.leases.SetPrefixes(self.PodCIDRs); err != nil {
		return 0, fmt.Errorf("use pod ranges of node %s: %w", self.Name, err)
	}
	if fromDisk == nil {
		n.pods.repair(snap.LocalPods)
	}
	v := &view{self: self, cluster: n.keeper.Basis().ClusterCIDRs, fromDisk: fromDisk != nil}
	cfg, err := n.config(self)
	if err != nil {
		return 0, err
	}
	if n.trust == nil {
		v.peers = plainPeers(snap, self.Name)
		return resync, n.follow(ctx, follow{cfg: cfg, view: v, peers: overlayPeers(v.peers, self, rotation.Decision{})})
	}
	return n.securely(ctx, snap, follow{cfg: cfg, view: v, light: light})
}

// securely is the part of a pass with keys: who is trusted, and which keys carry
// traffic. What peers may know of this node is published only when it works.
func (n *network) securely(ctx context.Context, snap kube.Snapshot, f follow) (time.Duration, error) {
	v := f.view
	learn := n.trust.follow
	if v.fromDisk { // which has not what an operator asked for last: nothing is signed by it
		learn = n.trust.know
	}
	if err := learn(v.self, snap); err != nil {
		return 0, err
	}
	v.revocations = n.trust.docket.number()
	v.peers = n.trust.judge.pass(ctx, snap, v.self.Name)
	noted := n.rotator.Noted()
	lanes, err := n.lanes.Observe()
	if err != nil {
		return 0, fmt.Errorf("read lanes: %w", err)
	}
	d, err := n.rotator.Decide(ctx, rotate.Scene{
		Published: snap.NodeKeys[v.self.Name], Request: snap.Rotations[v.self.Name], Peers: verified(v.peers, v.self),
	}, lanes)
	if err != nil {
		return 0, err
	}
	f.cfg.Generations = n.trust.identity.WGKeys().Generations()
	f.peers = overlayPeers(v.peers, v.self, d)
	if err := n.follow(ctx, f); err != nil {
		return 0, err
	}
	next := min(d.Next, resync)
	if n.rotator.Done(noted, slices.Max(f.cfg.Generations)) {
		next = 0
	}
	if !v.fromDisk {
		n.trust.list(d.Publish, d.Revoke)
	}
	return next, nil
}

// follow is what a pass has found out.
type follow struct {
	cfg   overlay.Config
	view  *view
	peers []overlay.Peer
	light bool
}

// follow plans and applies.
func (n *network) follow(ctx context.Context, f follow) (err error) {
	v := f.view
	v.plan, err = overlay.Compute(f.cfg, f.peers)
	if err != nil {
		return fmt.Errorf("plan lanes: %w", err)
	}
	n.state.setMTU(v.plan.MTU)
	if old := n.seen.Load(); f.light && old != nil && v.plan.EqualButPeers(n.applied) {
		v.uplinks = old.uplinks
		err = n.lanes.Apply(ctx, v.plan)
	} else {
		v.uplinks, err = n.apply(ctx, v.plan, v.self)
		n.applyTime = time.Now()
	}
	n.applied = v.plan
	if err != nil {
		n.applied, v.revocations = overlay.Plan{}, 0
		if old := n.seen.Load(); old != nil {
			v.revocations = old.revocations // the newest is not followed yet
		}
	}
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
		Addresses: self.Addresses, PodCIDRs: self.PodCIDRs, ClusterCIDRs: n.keeper.Basis().ClusterCIDRs, BasePort: n.cfg.LanePort,
		UnderlayMTU: mtu, MTU: n.cfg.MTU,
	}, nil
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
