// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package network

import (
	"context"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/rotate"
	"github.com/sealane/sealane/daemonset/trust"
	"github.com/sealane/sealane/keymgr/nodenet"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay"
)

// security is the part of a pass that depends on whether lanes are encrypted.
type security interface {
	// verify finds out whose keys count, and fills in what v says of peers, also if it
	// fails. Unless the snapshot is fit, this node's own identity is left alone.
	verify(ctx context.Context, snap cluster.Snapshot, v *View, fit bool) error
	// step decides which peers of v the plan has.
	step(ctx context.Context, now scene, v *View) (step, error)
	// poll reports, between passes, whether lanes have to change, and otherwise how long
	// they need not.
	poll(ctx context.Context) (changed bool, next time.Duration)
	// renew is poll, and brings new preshared keys to lanes that follow a plan already.
	renew(ctx context.Context, applied overlay.Plan) (changed bool, next time.Duration)
}

// step is a decision on the peers of a plan.
type step struct {
	peers       []overlay.Peer
	generations []uint64 // of this node's keys
	next        time.Duration
	// commit says that the host follows the plan. It reports whether the next pass
	// should begin at once.
	commit func() bool
}

// plaintext is for lanes without keys. There, nothing but the rules stands between what a
// kubelet writes and the plan.
type plaintext struct {
	self  string
	rules nodenet.Rules
}

func (plaintext) poll(context.Context) (bool, time.Duration) { return true, 0 }

func (plaintext) renew(context.Context, overlay.Plan) (bool, time.Duration) { return true, 0 }

func (p plaintext) verify(_ context.Context, snap cluster.Snapshot, v *View, _ bool) error {
	rules := p.rules
	rules.APIServer = snap.APIServer
	for _, node := range snap.Nodes {
		if node.Name == p.self {
			continue
		}
		r := trust.Result{Node: node}
		for _, a := range node.FirstAddresses() {
			if rules.CheckAddress(a, node.ControlPlane) == nil {
				r.Addresses = append(r.Addresses, a)
			}
		}
		v.Peers = append(v.Peers, r)
	}
	return nil
}

func (plaintext) step(_ context.Context, _ scene, v *View) (step, error) {
	return step{peers: overlayPeers(v.Peers, v.Self, rotation.Decision{}), next: resync, commit: func() bool { return false }}, nil
}

// truster is what the encrypted lanes need of a trust.Keeper.
type truster interface {
	Learn(self kube.Node, snap cluster.Snapshot) error
	Follow(self kube.Node, snap cluster.Snapshot) error
	SetKeys(publish, revoke []uint64)
}

// encrypted is for WireGuard.
type encrypted struct {
	trust   *trust.Keeper
	rotator *rotate.Rotator
	lanes   overlay.Backend
}

func (e *encrypted) feeds() feeds {
	return feeds{own: e.trust.Changed(), paired: e.rotator.Changed(), exchanged: e.rotator.Results(), take: e.rotator.Take}
}

func (e *encrypted) poll(ctx context.Context) (bool, time.Duration) {
	lanes, err := e.lanes.Observe()
	if err != nil {
		return true, 0 // a pass says what is wrong
	}
	return e.rotator.Poll(ctx, lanes)
}

func (e *encrypted) renew(ctx context.Context, applied overlay.Plan) (bool, time.Duration) {
	pass := e.rotator.Begin()
	changed, next := e.poll(ctx)
	if changed {
		return true, 0
	}
	if err := e.lanes.Apply(ctx, applied); err != nil {
		return true, 0 // a pass says what is wrong, and tries again
	}
	if pass.Commit() {
		next = 0
	}
	return false, next
}

// learn takes over a snapshot. One from disk does not have what an operator asked for
// last, so nothing is signed by it, and one that is unfit lacks this node.
func learn(t truster, snap cluster.Snapshot, v *View, fit bool) error {
	if v.FromDisk || !fit {
		return t.Learn(v.Self, snap)
	}
	return t.Follow(v.Self, snap)
}

// list has this node's statement list its keys, now that what peers then do works.
func list(t truster, d rotation.Decision, v *View) {
	if !v.FromDisk {
		t.SetKeys(d.Publish, d.Revoke)
	}
}

// verify believes by the roots of before if the new ones cannot be used.
func (e *encrypted) verify(ctx context.Context, snap cluster.Snapshot, v *View, fit bool) error {
	err := learn(e.trust, snap, v, fit)
	v.Revocations = e.trust.RevocationNumber()
	v.Peers = e.trust.Verify(ctx, snap, v.Self.Name)
	return err
}

func (e *encrypted) step(ctx context.Context, now scene, v *View) (step, error) {
	pass := e.rotator.Begin()
	name := v.Self.Name
	d, err := pass.Step(ctx, rotate.Scene{
		Published: now.snap.NodeKeys[name], Request: now.snap.Rotations[name], Peers: verified(v.Peers, v.Self),
		Addresses: v.Self.Addresses,
	}, now.lanes)
	if err != nil {
		return step{}, err
	}
	return step{
		peers: overlayPeers(v.Peers, v.Self, d), generations: e.trust.Identity().WGKeys().Generations(), next: min(d.Next, resync),
		commit: func() bool {
			list(e.trust, d, v)
			return pass.Commit()
		},
	}, nil
}
