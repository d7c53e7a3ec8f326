// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotation

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// pair decides on one peer. What it needs of the past is in mem, and of that only
// waiting times would be missed.
func (m *Machine) pair(in Input, p Peer, mem *memory) Pair {
	b := bond{in: in, peer: p, mem: mem, paths: map[Slot]Path{}}
	for _, path := range p.Paths {
		b.paths[path.Slot] = path
	}
	b.target = b.newest()
	mem.withdraw(in.Now, p.Keys)
	var d Pair
	for _, own := range in.Own.Keys {
		for _, theirs := range p.Keys {
			if c, ok := m.combination(b, own, theirs); ok {
				d.Install = append(d.Install, c)
			}
		}
	}
	slices.SortFunc(d.Install, b.prefer)
	maps.DeleteFunc(mem.lost, func(s Slot, _ bool) bool {
		return !slices.ContainsFunc(d.Install, func(c Combination) bool { return c.Slot == s })
	})
	b.choose(&d)
	mem.active = d.Active
	for i, c := range d.Install {
		d.Install[i].Initiate = c.Initiate && (c.Slot == b.target || c.Slot == d.Active) || d.Live && c.Slot == d.Active && b.rotates()
	}
	d.First = b.target != (Slot{}) && m.designated(b)
	if m.exchange(b) {
		mem.exchanging, mem.asked = true, b.target
		d.Exchange = &b.target
	}
	return d
}

// bond is one peer in one step.
type bond struct {
	in    Input
	peer  Peer
	mem   *memory
	paths map[Slot]Path
	// target is the slot that both ends are on their way to; zero as long as
	// nothing is announced.
	target Slot
}

// rotates tells whether the peer waits for this node to leave its old key: what is
// sent by the new one shows that, and be it a keepalive.
func (b bond) rotates() bool {
	listed := 0
	for _, k := range b.peer.Keys {
		if !k.Withdrawn {
			listed++
		}
	}
	return listed > 1
}

// prefer puts what both ends still stand by before what one of them has withdrawn,
// and then the newer before the older.
func (b bond) prefer(x, y Combination) int {
	withdrawn := func(s Slot) int {
		if slices.Contains(b.in.Own.Signed, s.Own) && slices.ContainsFunc(b.peer.Keys, func(k Key) bool { return k.Generation == s.Peer && !k.Withdrawn }) {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(withdrawn(x.Slot), withdrawn(y.Slot)), cmp.Compare(y.Peer, x.Peer), cmp.Compare(y.Own, x.Own))
}

// newest is the newest slot that the peer can know of.
func (b bond) newest() Slot {
	var s Slot
	for _, g := range b.in.Own.Announced {
		if slices.ContainsFunc(b.in.Own.Keys, func(k Key) bool { return k.Generation == g }) {
			s.Own = max(s.Own, g)
		}
	}
	for _, k := range b.peer.Keys {
		if !k.Withdrawn {
			s.Peer = max(s.Peer, k.Generation)
		}
	}
	if s.Own == 0 || s.Peer == 0 {
		return Slot{}
	}
	return s
}

// combination says whether a slot may be installed, and how.
func (m *Machine) combination(b bond, own, theirs Key) (Combination, bool) {
	c := Combination{Slot: Slot{Own: own.Generation, Peer: theirs.Generation}}
	path, installed := b.paths[c.Slot]
	if theirs.Withdrawn && (!installed || m.drained(b, c.Slot)) {
		return c, false
	}
	pairing, paired := b.peer.Paired[c.Slot]
	c.Preshared = b.peer.Secrecy != Classic && (paired || installed && path.Preshared)
	switch {
	case c.Preshared:
		c.Initiate = pairing.Client || !paired && path.Initiates
	case !installed && b.awaits(m.cfg.Times.Patience, c.Slot), b.peer.Secrecy == Required:
		return c, false
	default:
		c.Initiate = m.first(own, theirs, b.peer.UID)
	}
	c.Initiate = c.Initiate || b.calls(c.Slot)
	return c, true
}

// drained tells whether the peer has had the time to stop sending by a key that it
// has withdrawn, and has done so, and this node does not send by it either.
func (m *Machine) drained(b bond, s Slot) bool {
	isOld := func(x Slot) bool { return x.Peer == s.Peer }
	isNew := func(x Slot) bool { return x.Peer != s.Peer }
	return s != b.mem.active && b.in.Now.Sub(b.mem.withdrawn[s.Peer]) >= m.cfg.Times.Propagation &&
		b.mem.left(b.in.Now, m.cfg.Times.Quiet, isOld, isNew)
}

// calls tells whether this node starts a handshake, whoever's part it is: the
// session was lost, or does not come.
func (b bond) calls(s Slot) bool {
	path, installed := b.paths[s]
	if !path.Handshake.IsZero() {
		delete(b.mem.lost, s)
		return false
	}
	return b.mem.lost[s] || installed && b.in.Now.Sub(b.mem.paths[s].first) >= stepIn
}

// awaits tells whether a preferred preshared key has not been awaited long enough.
func (b bond) awaits(patience time.Duration, s Slot) bool {
	return b.peer.Secrecy == Preferred && (b.mem.awaited != s || b.in.Now.Sub(b.mem.since) < patience)
}

// first tells whether this node is the one to begin with a slot: the owner of the
// older key, which learns of the newer one when its owner is ready for it.
func (m *Machine) first(own, theirs Key, uid string) bool {
	return cmp.Or(own.Since.Compare(theirs.Since), cmp.Compare(m.cfg.Self, uid)) < 0
}

// choose picks the slot that carries traffic: the newest that is proven; without
// one that which was used before, or will be.
func (b bond) choose(d *Pair) {
	var fallback bool
	for _, c := range d.Install {
		path := b.paths[c.Slot]
		if path.Handshake.IsZero() {
			continue
		}
		if b.rests(c.Slot, d.Install) {
			fallback = true
			continue
		}
		d.Active, d.Live, d.Fallback = c.Slot, true, fallback
		return
	}
	for _, s := range []Slot{b.mem.active, b.target} {
		if slices.ContainsFunc(d.Install, func(c Combination) bool { return c.Slot == s }) {
			d.Active = s
			return
		}
	}
	if len(d.Install) > 0 {
		d.Active = d.Install[0].Slot
	}
}

// rests tells whether a proven slot is not to be used, for it fell silent and
// another one that is alive is there.
func (b bond) rests(s Slot, installed []Combination) bool {
	alive := func(c Combination) bool {
		return c.Slot != s && b.in.Now.Sub(b.paths[c.Slot].Handshake) < sessionEnd && !b.mem.paths[c.Slot].silent(b.in.Now)
	}
	if !slices.ContainsFunc(installed, alive) {
		return false
	}
	t := b.mem.paths[s]
	if s == b.mem.active && t.silent(b.in.Now) {
		t.resting, t.unanswered = b.in.Now.Add(rest), time.Time{}
	}
	return b.in.Now.Before(t.resting)
}

// exchange tells whether a preshared key for the target should be asked for now.
func (m *Machine) exchange(b bond) bool {
	mem := b.mem
	if b.target == (Slot{}) || b.peer.Secrecy == Classic {
		mem.awaited = Slot{}
		return false
	}
	since, wait := m.wanted(b)
	if since.IsZero() {
		mem.awaited = Slot{}
		return false
	}
	if mem.exchanging || mem.asked == b.target && b.in.Now.Before(mem.retry) {
		return false
	}
	return b.in.Now.Sub(since) >= wait
}

// wanted says since when a preshared key is wanted for the target, and how long
// this node lets others go first; the zero time if none is.
func (m *Machine) wanted(b bond) (time.Time, time.Duration) {
	mem, now := b.mem, b.in.Now
	path, installed := b.paths[b.target]
	pairing, paired := b.peer.Paired[b.target]
	designated := m.designated(b)
	if !paired && !(installed && path.Preshared) {
		if mem.awaited != b.target {
			mem.awaited, mem.since, mem.jitter = b.target, now, m.cfg.Spread(m.herd(b))
		}
		if designated {
			return mem.since, mem.jitter
		}
		return mem.since, mem.jitter + m.herd(b) + pairingStepIn
	}
	mem.awaited = Slot{}
	age := m.cfg.Times.Pairing
	if !paired { // agreed on before this daemon started: the other end may not have it
		pairing.At, age = m.start, max(10*time.Second, 4*m.herd(b))
	}
	if mem.lot == 0 {
		mem.lot = 1 + m.cfg.Spread(age/10)
	}
	wait := age - mem.lot
	if !designated {
		wait = age + age/2
	}
	// A session that should have begun, or been renewed, and was not: the keys may
	// differ, for an answer may have got lost.
	switch {
	case !installed:
	case path.Handshake.IsZero() && designated:
		return mem.paths[b.target].first, stepIn
	case path.Handshake.IsZero():
		return mem.paths[b.target].first, 2 * stepIn
	case now.Sub(path.Handshake) > rekeyOverdue:
		return path.Handshake, rekeyOverdue
	}
	return pairing.At, wait
}

// designated tells whether this node goes first with the target.
func (m *Machine) designated(b bond) bool {
	find := func(keys []Key, g uint64) Key {
		i := slices.IndexFunc(keys, func(k Key) bool { return k.Generation == g })
		return keys[i]
	}
	return m.first(find(b.in.Own.Keys, b.target.Own), find(b.peer.Keys, b.target.Peer), b.peer.UID)
}

// herd is the time over which peers spread what all of them learn at once.
func (m *Machine) herd(b bond) time.Duration {
	return time.Duration(len(b.in.Peers)) * time.Second / pairingsPerSecond
}
