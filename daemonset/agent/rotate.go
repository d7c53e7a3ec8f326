// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay"
)

// rotator asks the rotation machine what should be so, and does what is not the
// business of lanes: keys on disk, exchanges. It belongs to the network loop.
type rotator struct {
	machine  *rotation.Machine
	identity *keymgr.Identity
	pairs    *pairings
	mode     keymgr.PSKMode
	boot     time.Time
	log      *slog.Logger

	// ready is the newest generation whose devices this daemon has made or found.
	ready uint64
	scene scene
	last  rotation.Decision
	shown atomic.Pointer[shownRotation]
}

// scene is what a decision is made on besides kernel and disk.
type scene struct {
	self      kube.Node
	published keymgr.Signed // as the API server has it
	request   kube.RotationRequest
	peers     []judged
}

// shownRotation is the newest decision for status.
type shownRotation struct {
	decision rotation.Decision
	since    time.Time // of its state
	reason   rotation.Reason
}

func newRotator(cfg Config, t *trust, pairs *pairings) (*rotator, error) {
	boot, err := bootTime()
	if err != nil {
		return nil, err
	}
	return &rotator{
		machine:  rotation.New(rotation.Config{Self: t.identity.Node().UID, Times: rotation.TimesFor(cfg.RotationPeriod)}),
		identity: t.identity, pairs: pairs, mode: cfg.PostQuantum, boot: boot, log: t.log,
	}, nil
}

// bootTime is when the machine started, by today's clock.
func bootTime() (time.Time, error) {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Time{}, fmt.Errorf("read the time since boot: %w", err)
	}
	return time.Now().Add(-time.Duration(up.Nano())), nil
}

// decide makes a decision on a new scene, makes and removes keys as it says, and
// begins the exchanges that it asks for.
func (r *rotator) decide(ctx context.Context, s scene, lanes []overlay.LaneState) (rotation.Decision, error) {
	r.scene = s
	partners := map[string]partner{}
	for _, j := range s.peers {
		if p, ok := r.partner(j); ok {
			partners[j.node.UID] = p
		}
	}
	r.pairs.meet(partners)
	asked := map[string]rotation.Slot{}
	for {
		d := r.step(lanes, asked)
		switch {
		case d.Create != "":
			k, err := r.identity.WGKeys().Create()
			if err != nil {
				return d, fmt.Errorf("make wireguard key: %w", err)
			}
			r.log.Info("new key", "generation", k.Generation, "key", k.Public.String(), "why", d.Create)
			r.note(d, d.Create)
			continue
		case d.Remove != 0:
			if err := r.identity.WGKeys().Remove(d.Remove); err != nil {
				return d, fmt.Errorf("remove wireguard key: %w", err)
			}
			r.log.Info("old key removed", "generation", d.Remove)
			continue
		}
		r.last = d
		r.note(d, "")
		for uid, pair := range d.Peers {
			p := partners[uid]
			p.first = pair.First
			partners[uid] = p
		}
		r.pairs.meet(partners)
		r.ask(ctx, asked)
		return d, nil
	}
}

// glance looks whether the kernel shows something that changes the last decision.
// It says so, and how long nothing is expected to happen.
func (r *rotator) glance(ctx context.Context, lanes []overlay.LaneState) (changed bool, next time.Duration) {
	asked := map[string]rotation.Slot{}
	d := r.step(lanes, asked)
	r.ask(ctx, asked)
	if d.Create != "" || d.Remove != 0 || !sameDecision(d, r.last) {
		return true, 0
	}
	r.note(d, "")
	return false, d.Next
}

func (r *rotator) step(lanes []overlay.LaneState, asked map[string]rotation.Slot) rotation.Decision {
	d := r.machine.Step(r.input(lanes))
	for uid, p := range d.Peers {
		if p.Exchange != nil {
			asked[uid] = *p.Exchange
		}
	}
	return d
}

func (r *rotator) ask(ctx context.Context, asked map[string]rotation.Slot) {
	for uid, slot := range asked {
		r.pairs.ask(ctx, uid, slot)
	}
}

// sameDecision compares what is done, not what is waited for.
func sameDecision(a, b rotation.Decision) bool {
	act := func(p, q rotation.Pair) bool {
		return p.Active == q.Active && slices.Equal(p.Install, q.Install)
	}
	return a.State == b.State && slices.Equal(a.Publish, b.Publish) && slices.Equal(a.Revoke, b.Revoke) && maps.EqualFunc(a.Peers, b.Peers, act)
}

// note keeps a decision for status. The reason of a new key stays until the next.
func (r *rotator) note(d rotation.Decision, why rotation.Reason) {
	n := &shownRotation{decision: d, since: time.Now(), reason: why}
	if old := r.shown.Load(); old != nil {
		if why == "" {
			n.reason = old.reason
		}
		if old.decision.State == d.State {
			n.since = old.since
		}
	}
	r.shown.Store(n)
}

// input puts together what the machine is told.
func (r *rotator) input(lanes []overlay.LaneState) rotation.Input {
	s := r.scene
	in := rotation.Input{
		Now: time.Now(), Ready: r.ready, Boot: r.boot, Requested: s.request.At, Compromised: s.request.Compromised, Own: r.own(s.published),
	}
	own := r.identity.WGKeys().All()
	index := newPathIndex(own, lanes)
	for _, j := range s.peers {
		if len(j.peer.Keys) == 0 {
			continue
		}
		p := rotation.Peer{UID: j.node.UID, Secrecy: r.secrecy(j.peer), Paired: r.pairs.with(own, allKeys(j.peer))}
		for _, k := range j.peer.Keys {
			p.Keys = append(p.Keys, rotation.Key{Generation: k.Generation(), Since: k.Since()})
		}
		for _, k := range j.peer.Withdrawn {
			p.Keys = append(p.Keys, rotation.Key{Generation: k.Generation(), Since: k.Since(), Withdrawn: true})
		}
		for _, k := range allKeys(j.peer) {
			p.Paths = append(p.Paths, index.of(k)...)
		}
		in.Peers = append(in.Peers, p)
	}
	return in
}

// allKeys are those of a peer that lanes may be with.
func allKeys(p keymgr.Peer) []keymgr.PeerKey { return slices.Concat(p.Keys, p.Withdrawn) }

// own describes this node's keys, as peers know them where they do.
func (r *rotator) own(published keymgr.Signed) rotation.Own {
	var o rotation.Own
	since := map[uint64]time.Time{}
	if last, ok := r.identity.Last(); ok {
		if s, err := keymgr.ParseStatement(last.Payload); err == nil {
			for _, k := range s.Keys {
				since[k.Generation] = k.NotBefore.Truncate(time.Second)
				o.Signed = append(o.Signed, k.Generation)
			}
		}
		if last.Equal(published) {
			o.Announced = o.Signed
		}
	}
	for _, k := range r.identity.WGKeys().All() {
		key := rotation.Key{Generation: k.Generation, Since: k.Created.Truncate(time.Second)}
		if at, ok := since[k.Generation]; ok {
			key.Since = at
		}
		o.Keys = append(o.Keys, key)
	}
	return o
}

// secrecy is what this node's mode and a peer's make of each other; those that
// exclude each other never get here.
func (r *rotator) secrecy(p keymgr.Peer) rotation.Secrecy {
	switch {
	case r.mode == keymgr.PSKRequired || p.PSK == keymgr.PSKRequired:
		return rotation.Required
	case r.mode == keymgr.PSKPreferred && p.PSK == keymgr.PSKPreferred && p.PSKPort != 0:
		return rotation.Preferred
	}
	return rotation.Classic
}

func (r *rotator) partner(j judged) (partner, bool) {
	if len(j.peer.Keys) == 0 {
		return partner{}, false
	}
	at := sameFamily(j.peer.Endpoints, r.scene.self.Addresses)
	return partner{
		id: j.peer.ID, keys: allKeys(j.peer), secrecy: r.secrecy(j.peer), addr: netip.AddrPortFrom(at, j.peer.PSKPort),
	}, true
}

// pathIndex finds what the kernel shows of a peer's key.
type pathIndex map[keymgr.PublicKey][]seenPath

type seenPath struct {
	own  uint64
	peer overlay.PeerState
}

func newPathIndex(own []keymgr.WGKey, lanes []overlay.LaneState) pathIndex {
	index := pathIndex{}
	for _, l := range lanes {
		i := slices.IndexFunc(own, func(k keymgr.WGKey) bool { return k.Public == l.Key })
		if i < 0 {
			continue
		}
		for _, p := range l.Peers {
			index[p.Key] = append(index[p.Key], seenPath{own[i].Generation, p})
		}
	}
	return index
}

func (x pathIndex) of(k keymgr.PeerKey) []rotation.Path {
	var out []rotation.Path
	for _, s := range x[k.Key()] {
		out = append(out, rotation.Path{
			Slot:      rotation.Slot{Own: s.own, Peer: k.Generation()},
			Handshake: s.peer.LastHandshake, Received: s.peer.Received, Sent: s.peer.Sent,
			Preshared: s.peer.Preshared, Initiates: s.peer.Initiates,
		})
	}
	return out
}

// combinations gives a decision on a peer to the plan.
func combinations(p rotation.Pair) []overlay.Combination {
	var out []overlay.Combination
	for _, c := range p.Install {
		out = append(out, overlay.Combination{Slot: overlay.Slot(c.Slot), Preshared: c.Preshared, Initiate: c.Initiate})
	}
	return out
}

// lanesAlone tells whether two plans differ in nothing but the peers of devices.
func lanesAlone(a, b overlay.Plan) bool {
	devices := func(p overlay.Plan) []overlay.Lane {
		out := slices.Clone(p.Lanes)
		for i := range out {
			out[i].Peers = nil
		}
		return out
	}
	a.Lanes, b.Lanes = devices(a), devices(b)
	return reflect.DeepEqual(a, b)
}
