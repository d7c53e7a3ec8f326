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
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sealane/sealane/internal/signal"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/pairing"
	"github.com/sealane/sealane/keymgr/rotation"
)

// maxAsking is how many exchanges of this node may run at a time.
const maxAsking = 32

// partner is what pairing needs to know about a peer, as of the newest pass.
type partner struct {
	id      keymgr.NodeID
	keys    []keymgr.PeerKey
	addr    netip.AddrPort
	from    []netip.Addr // its addresses, from which it may ask
	secrecy rotation.Secrecy
	first   bool // this node goes first
}

// ends are the two WireGuard keys of a pair, this node's first.
type ends struct{ own, theirs keymgr.PublicKey }

// agreed is a preshared key with its origin.
type agreed struct {
	key keymgr.PresharedKey
	rotation.Pairing
}

// Exchanged is the outcome of an exchange that this node asked for.
type Exchanged struct {
	uid string
	ok  bool
}

// pairings holds the preshared keys, in memory only, and agrees on them with the peers. The
// network loop applies them to the tunnels.
type pairings struct {
	identity pairing.Identity
	keys     func() []identity.WGKey // this node's
	events   Reporter
	log      *slog.Logger

	changed signal.Signal // tells the network loop to apply new keys
	places  *places
	results chan Exchanged // of exchanges that this node asked for
	slots   chan struct{}  // bounds them

	mu       sync.Mutex // guards the fields below
	agreed   map[ends]agreed
	partners map[string]partner // by UID
	asking   map[string]bool    // by UID
	// version counts the agreed keys, applied those that are on the tunnels; advanced is
	// closed when applied grows.
	version, applied uint64
	advanced         chan struct{}
	counts           map[[2]string]uint64 // by role and result
	told             map[[2]string]bool   // peers and reasons that an Event told of
}

func newPairings(c Config) *pairings {
	p := &pairings{
		identity: pairing.Identity{
			Node: c.Identity.Node(), Certificate: c.Identity.TLSCertificate, Authenticate: c.Authenticate,
		},
		keys: c.Identity.WGKeys().All, events: c.Events, log: c.Logger,
		changed: signal.New(), places: newPlaces(), results: make(chan Exchanged), slots: make(chan struct{}, maxAsking),
		agreed: map[ends]agreed{}, partners: map[string]partner{}, asking: map[string]bool{},
		advanced: make(chan struct{}), counts: map[[2]string]uint64{}, told: map[[2]string]bool{},
	}
	p.identity.Address = p.places.source
	return p
}

// serve answers peers until ctx ends, on the addresses that places has of this node.
func (p *pairings) serve(ctx context.Context, port uint16) error {
	s := pairing.Server{Identity: p.identity, Known: p.places.known, Agree: p.agree, Failed: func(from netip.Addr, err error) {
		p.failed(ctx, roleServer, p.places.at(from), err)
	}}
	l := newListener(port, p.log)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return l.follow(ctx, p.places.moved, p.places.addresses) })
	group.Go(func() error { return s.Serve(ctx, l) })
	return group.Wait()
}

// meet replaces the partners, and forgets the preshared keys of WireGuard keys that no
// partner has any more.
func (p *pairings) meet(partners map[string]partner) {
	own, theirs, owners := map[keymgr.PublicKey]bool{}, map[keymgr.PublicKey]bool{}, map[netip.Addr]keymgr.NodeID{}
	for _, k := range p.keys() {
		own[k.Public] = true
	}
	for _, o := range partners {
		for _, k := range o.keys {
			theirs[k.Key()] = true
		}
		for _, a := range o.from {
			owners[a] = o.id
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.partners = partners
	p.places.meet(owners)
	maps.DeleteFunc(p.agreed, func(e ends, _ agreed) bool { return !own[e.own] || !theirs[e.theirs] })
}

// with returns what was agreed on with the owner of the keys theirs, by slot.
func (p *pairings) with(own []identity.WGKey, theirs []keymgr.PeerKey) map[rotation.Pair]rotation.Pairing {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[rotation.Pair]rotation.Pairing{}
	for _, x := range own {
		for _, y := range theirs {
			if a, ok := p.agreed[ends{x.Public, y.Key()}]; ok {
				out[rotation.Pair{Own: x.Generation, Peer: y.Generation()}] = a.Pairing
			}
		}
	}
	return out
}

// preshared returns the preshared key for an own generation and a peer's key.
func (p *pairings) preshared(own uint64, theirs keymgr.PublicKey) (keymgr.PresharedKey, bool) {
	for _, k := range p.keys() {
		if k.Generation == own {
			p.mu.Lock()
			defer p.mu.Unlock()
			a, ok := p.agreed[ends{k.Public, theirs}]
			return a.key, ok
		}
	}
	return keymgr.PresharedKey{}, false
}

// agree is the server's part: when it returns no error, the key is on the tunnel.
func (p *pairings) agree(ctx context.Context, s pairing.Subject, key keymgr.PresharedKey) error {
	version, undo, err := p.take(s, key)
	if err != nil {
		return err
	}
	p.changed.Raise()
	if err := p.await(ctx, version); err != nil {
		undo()
		return err
	}
	p.count(roleServer, "agreed")
	return nil
}

// take checks what a peer asks for and stores the key; undo restores the previous one.
func (p *pairings) take(s pairing.Subject, key keymgr.PresharedKey) (version uint64, undo func(), err error) {
	ownKnown := slices.ContainsFunc(p.keys(), func(k identity.WGKey) bool { return k.Public == s.Own })
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.partners[s.Peer.UID]
	switch {
	case !ownKnown || !slices.ContainsFunc(o.keys, func(k keymgr.PeerKey) bool { return k.Key() == s.Theirs }):
		return 0, nil, &pairing.RefusedError{Reason: pairing.RefusedKey}
	case o.secrecy == rotation.Classic:
		return 0, nil, &pairing.RefusedError{Reason: pairing.RefusedPolicy}
	case o.first && p.asking[s.Peer.UID]: // two exchanges at once would leave two keys
		return 0, nil, &pairing.RefusedError{Reason: pairing.RefusedBusy}
	}
	e := ends{s.Own, s.Theirs}
	before, had := p.agreed[e]
	p.putLocked(e, agreed{key, rotation.Pairing{At: time.Now()}})
	return p.version, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.agreed[e].key != key {
			return
		}
		delete(p.agreed, e)
		if had {
			p.putLocked(e, before)
		}
	}, nil
}

func (p *pairings) putLocked(e ends, a agreed) {
	p.agreed[e] = a
	p.version++
}

// noted returns the version that a pass which begins now will apply to the tunnels.
func (p *pairings) noted() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.version
}

// done records that the tunnels have all keys up to a version.
func (p *pairings) done(version uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if version > p.applied {
		p.applied = version
		close(p.advanced)
		p.advanced = make(chan struct{})
	}
}

func (p *pairings) await(ctx context.Context, version uint64) error {
	for {
		p.mu.Lock()
		done, advanced := p.applied >= version, p.advanced
		p.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("bring preshared key to the lane: %w", ctx.Err())
		case <-advanced:
		}
	}
}

// ask begins an exchange with a peer; its outcome is sent to results.
func (p *pairings) ask(ctx context.Context, uid string, slot rotation.Pair) {
	p.mu.Lock()
	o := p.partners[uid]
	p.asking[uid] = true
	p.mu.Unlock()
	subject, ok := p.subject(o, slot)
	go func() {
		select {
		case <-ctx.Done():
			return
		case p.slots <- struct{}{}:
		}
		if ok {
			ok = p.exchange(ctx, o, subject)
		}
		<-p.slots
		p.mu.Lock()
		delete(p.asking, uid)
		p.mu.Unlock()
		select {
		case <-ctx.Done():
		case p.results <- Exchanged{uid, ok}:
		}
	}()
}

func (p *pairings) subject(o partner, slot rotation.Pair) (pairing.Subject, bool) {
	s := pairing.Subject{Peer: o.id}
	for _, k := range p.keys() {
		if k.Generation == slot.Own {
			s.Own = k.Public
		}
	}
	for _, k := range o.keys {
		if k.Generation() == slot.Peer {
			s.Theirs = k.Key()
		}
	}
	return s, !s.Own.IsZero() && !s.Theirs.IsZero() && o.addr.IsValid()
}

func (p *pairings) exchange(ctx context.Context, o partner, s pairing.Subject) bool {
	key, err := pairing.Exchange(ctx, p.identity, o.addr, s)
	if err != nil {
		p.failed(ctx, roleClient, o.id, err)
		return false
	}
	p.mu.Lock()
	p.putLocked(ends{s.Own, s.Theirs}, agreed{key, rotation.Pairing{At: time.Now(), Client: true}})
	maps.DeleteFunc(p.told, func(about [2]string, _ bool) bool { return about[0] == o.id.UID })
	p.mu.Unlock()
	p.count(roleClient, "agreed")
	return true
}
