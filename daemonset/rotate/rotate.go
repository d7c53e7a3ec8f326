// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotate

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay"
)

// Reporter tells operators what they must know, as Kubernetes Events.
type Reporter interface {
	Event(context.Context, kube.EventSpec)
}

// Config configures a Rotator.
type Config struct {
	Identity *identity.Identity
	// Authenticate returns the node that a certificate chain (DER, leaf first) belongs to.
	Authenticate func(chain [][]byte) (keymgr.NodeID, error)
	Period       time.Duration // between rotations; 0 means only on request
	Mode         keymgr.PSKMode
	Events       Reporter
	Logger       *slog.Logger
}

// Rotator asks the rotation machine what to do, and does everything except changes of
// tunnels: keys on disk, exchanges with peers. Serve, Preshared, Shown and Pairings are
// safe for concurrent use; only one goroutine may call the other methods.
type Rotator struct {
	machine  *rotation.Machine
	identity *identity.Identity
	pairs    *pairings
	mode     keymgr.PSKMode
	boot     time.Time
	log      *slog.Logger

	// ready is the newest generation whose devices this daemon has created or found.
	ready uint64
	scene Scene
	last  rotation.Decision
	shown atomic.Pointer[Shown]
}

// Scene is the input of a decision besides kernel and disk.
type Scene struct {
	Published keymgr.Signed // this node's statement on the API server
	Request   cluster.RotationRequest
	Peers     []Peer
	Addresses []netip.Addr // this node's, by which it pairs with peers
}

// Peer is a verified peer, and the address at which this node reaches it.
type Peer struct {
	keymgr.Peer
	Addr netip.Addr
}

// Shown is the newest decision for status, and the time since which its state holds.
type Shown struct {
	Decision rotation.Decision
	Since    time.Time
	Reason   rotation.Reason
}

// New returns a Rotator that has decided nothing.
func New(c Config) (*Rotator, error) {
	boot, err := bootTime()
	if err != nil {
		return nil, err
	}
	return &Rotator{
		machine:  rotation.New(rotation.Config{Self: c.Identity.Node().UID, Times: rotation.TimesFor(c.Period)}),
		identity: c.Identity, pairs: newPairings(c), mode: c.Mode, boot: boot, log: c.Logger,
	}, nil
}

// Serve answers peers that ask for preshared keys, until ctx ends. It listens on the
// addresses of the newest scene.
func (r *Rotator) Serve(ctx context.Context, port uint16) error { return r.pairs.serve(ctx, port) }

// Preshared returns what was agreed on for an own generation and a peer's key.
func (r *Rotator) Preshared(own uint64, theirs keymgr.PublicKey) (keymgr.PresharedKey, bool) {
	return r.pairs.preshared(own, theirs)
}

// Changed reports that a peer waits until its preshared key is on the tunnel.
func (r *Rotator) Changed() <-chan struct{} { return r.pairs.changed }

// Results returns the channel of finished exchanges. Pass each of them to Take.
func (r *Rotator) Results() <-chan Exchanged { return r.pairs.results }

// Take passes the outcome of an exchange to the next decision, together with all others
// that have ended by now: in a large cluster a pass takes longer than many exchanges.
func (r *Rotator) Take(e Exchanged) {
	for {
		r.machine.Exchanged(e.uid, e.ok, time.Now())
		select {
		case e = <-r.pairs.results:
		default:
			return
		}
	}
}

// Pass is one update of the tunnels. The contract: call Begin, then Step where the plan may
// change, then apply the plan to the tunnels, then Commit if that succeeded. Drop a Pass
// that fails; the next one starts from the same state.
type Pass struct {
	rotator *Rotator
	noted   uint64 // version of the preshared keys when the pass began
	newest  uint64 // generation whose devices the plan has
}

// Begin starts a pass: every preshared key that is agreed on by now will be on the tunnels
// when the pass is committed.
func (r *Rotator) Begin() *Pass {
	return &Pass{rotator: r, noted: r.pairs.noted(), newest: r.ready}
}

// Commit records that the tunnels are as decided. It reports whether that affects the next
// decision, which should then follow at once.
func (p *Pass) Commit() bool {
	r := p.rotator
	r.pairs.done(p.noted)
	changed := r.ready != p.newest
	r.ready = p.newest
	return changed
}

// Step makes a decision on a new scene and acts on it: it creates and removes keys on disk,
// and begins the exchanges that are due. Changes of tunnels are left to the caller.
func (p *Pass) Step(ctx context.Context, s Scene, lanes []overlay.TunnelState) (rotation.Decision, error) {
	d, err := p.rotator.decide(ctx, s, lanes)
	if err != nil {
		return d, err
	}
	if own := p.rotator.identity.WGKeys().Generations(); len(own) > 0 {
		p.newest = slices.Max(own)
	}
	return d, nil
}

// Shown returns the newest decision, or nil before the first one.
func (r *Rotator) Shown() *Shown { return r.shown.Load() }

// Pairings returns the counts of exchanges since the daemon started.
func (r *Rotator) Pairings() []status.Pairing { return r.pairs.soFar() }

// bootTime returns when the machine started, according to the present clock.
func bootTime() (time.Time, error) {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Time{}, fmt.Errorf("read the time since boot: %w", err)
	}
	return time.Now().Add(-time.Duration(up.Nano())), nil
}

// decide makes a decision on a new scene, creates and removes keys as decided, and begins
// the exchanges that the decision asks for.
func (r *Rotator) decide(ctx context.Context, s Scene, lanes []overlay.TunnelState) (rotation.Decision, error) {
	r.scene = s
	partners := map[string]partner{}
	for _, p := range s.Peers {
		if len(p.Keys) > 0 {
			partners[p.ID.UID] = r.partner(p)
		}
	}
	wanted := map[string]rotation.Pair{}
	for {
		d := r.step(lanes, wanted)
		switch {
		case d.Create != "":
			k, err := r.identity.WGKeys().CreateFor(asked(s.Request))
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
			p.first = pair.Initiator
			partners[uid] = p
		}
		r.pairs.meet(partners)
		r.pairs.places.settle(s.Addresses)
		r.ask(ctx, wanted)
		return d, nil
	}
}

// Poll checks, between passes, whether the kernel shows something that changes the last
// decision, and begins the exchanges that are due. It reports whether a pass is needed, and
// otherwise for how long no change is expected.
func (r *Rotator) Poll(ctx context.Context, lanes []overlay.TunnelState) (changed bool, next time.Duration) {
	asked := map[string]rotation.Pair{}
	d := r.step(lanes, asked)
	r.ask(ctx, asked)
	if d.Create != "" || d.Remove != 0 || !sameDecision(d, r.last) {
		return true, 0
	}
	r.note(d, "")
	return false, d.Next
}

func (r *Rotator) step(lanes []overlay.TunnelState, asked map[string]rotation.Pair) rotation.Decision {
	d := r.machine.Step(r.input(lanes))
	for uid, p := range d.Peers {
		if p.Exchange != nil {
			asked[uid] = *p.Exchange
		}
	}
	return d
}

func (r *Rotator) ask(ctx context.Context, asked map[string]rotation.Pair) {
	for uid, slot := range asked {
		r.pairs.ask(ctx, uid, slot)
	}
}

// sameDecision compares what the decisions do, not what they wait for.
func sameDecision(a, b rotation.Decision) bool {
	act := func(p, q rotation.PeerDecision) bool {
		return p.Active == q.Active && slices.Equal(p.Install, q.Install)
	}
	return a.State == b.State && slices.Equal(a.Publish, b.Publish) && slices.Equal(a.Revoke, b.Revoke) && maps.EqualFunc(a.Peers, b.Peers, act)
}

// note stores a decision for status. The reason for a new key stays until the next new key.
func (r *Rotator) note(d rotation.Decision, why rotation.Reason) {
	n := &Shown{Decision: d, Since: time.Now(), Reason: why}
	if old := r.shown.Load(); old != nil {
		if why == "" {
			n.Reason = old.Reason
		}
		if old.Decision.State == d.State {
			n.Since = old.Since
		}
	}
	r.shown.Store(n)
}

// input assembles the input of the machine.
func (r *Rotator) input(lanes []overlay.TunnelState) rotation.Input {
	s := r.scene
	in := rotation.Input{
		Now: time.Now(), Ready: r.ready, Boot: r.boot, Requested: s.Request.At, Compromised: s.Request.Compromised, Own: r.own(s.Published),
	}
	own := r.identity.WGKeys().All()
	index := NewPaths(own, lanes)
	for _, peer := range s.Peers {
		if len(peer.Keys) == 0 {
			continue
		}
		p := rotation.Peer{UID: peer.ID.UID, Secrecy: r.secrecy(peer.Peer), Paired: r.pairs.with(own, peer.Peer.AllKeys())}
		for _, k := range peer.Keys {
			p.Keys = append(p.Keys, rotation.Key{Generation: k.Generation(), Since: k.Since()})
		}
		for _, k := range peer.Withdrawn {
			p.Keys = append(p.Keys, rotation.Key{Generation: k.Generation(), Since: k.Since(), Withdrawn: true})
		}
		for _, k := range peer.Peer.AllKeys() {
			p.Paths = append(p.Paths, index.paths(k)...)
		}
		in.Peers = append(in.Peers, p)
	}
	return in
}

// own describes this node's keys, as its statement shows them if it lists them.
func (r *Rotator) own(published keymgr.Signed) rotation.Own {
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
		key := rotation.Key{
			Generation: k.Generation, Since: k.Created.Truncate(time.Second),
			Requested: moment(k.Asked.Rotation), Compromised: moment(k.Asked.Compromised),
		}
		if at, ok := since[k.Generation]; ok {
			key.Since = at
		}
		o.Keys = append(o.Keys, key)
	}
	return o
}

// secrecy returns what this node's mode and a peer's result in; modes that exclude each
// other never get here.
func (r *Rotator) secrecy(p keymgr.Peer) rotation.Secrecy {
	switch {
	case r.mode == keymgr.PSKRequired || p.PSK == keymgr.PSKRequired:
		return rotation.Required
	case r.mode == keymgr.PSKPreferred && p.PSK == keymgr.PSKPreferred && p.PSKPort != 0:
		return rotation.Preferred
	}
	return rotation.Classic
}

func (r *Rotator) partner(p Peer) partner {
	return partner{
		id: p.ID, keys: p.Peer.AllKeys(), secrecy: r.secrecy(p.Peer), addr: netip.AddrPortFrom(p.Addr, p.PSKPort),
		from: p.Endpoints,
	}
}
