// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotation

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// decidePeer decides on one peer. Without its state, only waiting times would start again.
func (m *Machine) decidePeer(in Input, p Peer, state *peerState) PeerDecision {
	b := pairContext{in: in, peer: p, state: state, paths: map[Pair]Path{}}
	for _, path := range p.Paths {
		b.paths[path.Pair] = path
	}
	b.target = b.newest()
	state.withdraw(in.Now, p.Keys)
	var d PeerDecision
	for _, own := range in.Own.Keys {
		for _, theirs := range p.Keys {
			if c, ok := m.wanted(b, own, theirs); ok {
				d.Install = append(d.Install, c)
			}
		}
	}
	slices.SortFunc(d.Install, b.prefer)
	maps.DeleteFunc(state.lost, func(s Pair, _ bool) bool {
		return !slices.ContainsFunc(d.Install, func(c WantedPair) bool { return c.Pair == s })
	})
	b.choose(&d)
	state.active = d.Active
	for i, c := range d.Install {
		d.Install[i].Initiate = c.Initiate && (c.Pair == b.target || c.Pair == d.Active) || d.Live && c.Pair == d.Active && b.rotates()
	}
	d.Initiator = b.target != (Pair{}) && m.isInitiator(b)
	if m.exchange(b) {
		state.exchanging, state.asked = true, b.target
		d.Exchange = &b.target
	}
	return d
}

// pairContext is this node and one peer in one step.
type pairContext struct {
	in    Input
	peer  Peer
	state *peerState
	paths map[Pair]Path
	// target is the pair that both nodes move to; zero as long as nothing is announced.
	target Pair
}

// rotates reports whether the peer waits for this node to leave the peer's old key.
// Anything that this node sends with the new key, even a keepalive, shows that it did.
func (b pairContext) rotates() bool {
	listed := 0
	for _, k := range b.peer.Keys {
		if !k.Withdrawn {
			listed++
		}
	}
	return listed > 1
}

// prefer orders pairs that neither node has withdrawn before the others, and then newer
// before older.
func (b pairContext) prefer(x, y WantedPair) int {
	withdrawn := func(s Pair) int {
		if slices.Contains(b.in.Own.Signed, s.Own) && slices.ContainsFunc(b.peer.Keys, func(k Key) bool { return k.Generation == s.Peer && !k.Withdrawn }) {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(withdrawn(x.Pair), withdrawn(y.Pair)), cmp.Compare(y.Peer, x.Peer), cmp.Compare(y.Own, x.Own))
}

// newest returns the newest pair that the peer can know of.
func (b pairContext) newest() Pair {
	var s Pair
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
		return Pair{}
	}
	return s
}

// wanted returns how to install a pair, and whether it may be installed.
func (m *Machine) wanted(b pairContext, own, theirs Key) (WantedPair, bool) {
	c := WantedPair{Pair: Pair{Own: own.Generation, Peer: theirs.Generation}}
	path, installed := b.paths[c.Pair]
	if theirs.Withdrawn && (!installed || m.drained(b, c.Pair)) {
		return c, false
	}
	pairing, paired := b.peer.Paired[c.Pair]
	c.Preshared = b.peer.Secrecy != Classic && (paired || installed && path.Preshared)
	switch {
	case c.Preshared:
		c.Initiate = pairing.Client || !paired && path.Initiates
	case !installed && b.awaits(m.cfg.Times.Patience, c.Pair), b.peer.Secrecy == Required:
		return c, false
	default:
		c.Initiate = m.initiator(own, theirs, b.peer.UID)
	}
	c.Initiate = c.Initiate || b.calls(c.Pair)
	return c, true
}

// drained reports whether neither node uses a pair any more whose key the peer has
// withdrawn: this node does not send on it, and the peer has had time to stop and did.
func (m *Machine) drained(b pairContext, s Pair) bool {
	isOld := func(x Pair) bool { return x.Peer == s.Peer }
	isNew := func(x Pair) bool { return x.Peer != s.Peer }
	return s != b.state.active && b.in.Now.Sub(b.state.withdrawn[s.Peer]) >= m.cfg.Times.Propagation &&
		b.state.left(b.in.Now, m.cfg.Times.Quiet, isOld, isNew)
}

// calls reports whether this node starts a handshake even if it is not the initiator,
// because the session was lost or does not come up.
func (b pairContext) calls(s Pair) bool {
	path, installed := b.paths[s]
	if !path.Handshake.IsZero() {
		delete(b.state.lost, s)
		return false
	}
	return b.state.lost[s] || installed && b.in.Now.Sub(b.state.paths[s].first) >= takeover
}

// awaits reports whether to wait longer for a preferred preshared key.
func (b pairContext) awaits(patience time.Duration, s Pair) bool {
	return b.peer.Secrecy == Preferred && (b.state.awaited != s || b.in.Now.Sub(b.state.since) < patience)
}

// initiator reports whether this node starts a pair. That is the owner of the older key,
// because it learns of the newer key when the owner of that is ready.
func (m *Machine) initiator(own, theirs Key, uid string) bool {
	return cmp.Or(own.Since.Compare(theirs.Since), cmp.Compare(m.cfg.Self, uid)) < 0
}

// choose picks the pair that carries traffic: the newest that is proven, otherwise the
// one that was used before or will be used.
func (b pairContext) choose(d *PeerDecision) {
	var fallback bool
	for _, c := range d.Install {
		path := b.paths[c.Pair]
		if path.Handshake.IsZero() {
			continue
		}
		if b.suspended(c.Pair, d.Install) {
			fallback = true
			continue
		}
		d.Active, d.Live, d.Fallback = c.Pair, true, fallback
		return
	}
	for _, s := range []Pair{b.state.active, b.target} {
		if slices.ContainsFunc(d.Install, func(c WantedPair) bool { return c.Pair == s }) {
			d.Active = s
			return
		}
	}
	if len(d.Install) > 0 {
		d.Active = d.Install[0].Pair
	}
}

// suspended reports whether not to use a proven pair, because it fell silent and another
// pair is alive.
func (b pairContext) suspended(s Pair, installed []WantedPair) bool {
	alive := func(c WantedPair) bool {
		return c.Pair != s && b.in.Now.Sub(b.paths[c.Pair].Handshake) < sessionEnd && !b.state.paths[c.Pair].silent(b.in.Now)
	}
	if !slices.ContainsFunc(installed, alive) {
		return false
	}
	t := b.state.paths[s]
	if s == b.state.active && t.silent(b.in.Now) {
		t.suspendedUntil, t.unanswered = b.in.Now.Add(suspension), time.Time{}
	}
	return b.in.Now.Before(t.suspendedUntil)
}

// exchange reports whether to ask for a preshared key for the target now.
func (m *Machine) exchange(b pairContext) bool {
	state := b.state
	if b.target == (Pair{}) || b.peer.Secrecy == Classic {
		state.awaited = Pair{}
		return false
	}
	since, wait := m.wait(b)
	if since.IsZero() {
		state.awaited = Pair{}
		return false
	}
	if state.exchanging || state.asked == b.target && b.in.Now.Before(state.retry) {
		return false
	}
	return b.in.Now.Sub(since) >= wait
}

// wait returns since when a preshared key is needed for the target, and how long this
// node waits before it asks. The zero time means that no key is needed.
func (m *Machine) wait(b pairContext) (time.Time, time.Duration) {
	state, now := b.state, b.in.Now
	path, installed := b.paths[b.target]
	pairing, paired := b.peer.Paired[b.target]
	initiator := m.isInitiator(b)
	if !paired && !(installed && path.Preshared) {
		if state.awaited != b.target {
			state.awaited, state.since, state.jitter = b.target, now, m.cfg.Spread(m.fanIn(b))
		}
		if initiator {
			return state.since, state.jitter
		}
		return state.since, state.jitter + m.fanIn(b) + pairingTakeover
	}
	state.awaited = Pair{}
	age := m.cfg.Times.Pairing
	if !paired { // agreed before this daemon started: the peer may not have it
		pairing.At, age = m.start, max(10*time.Second, 4*m.fanIn(b))
	}
	if state.ageJitter == 0 {
		state.ageJitter = 1 + m.cfg.Spread(age/10)
	}
	wait := age - state.ageJitter
	if !initiator {
		wait = age + age/2
	}
	// If a session should have begun or been renewed and was not, the preshared keys may
	// differ: an answer may have been lost.
	switch {
	case !installed:
	case path.Handshake.IsZero() && initiator:
		return state.paths[b.target].first, takeover
	case path.Handshake.IsZero():
		return state.paths[b.target].first, 2 * takeover
	case now.Sub(path.Handshake) > rekeyOverdue:
		return path.Handshake, rekeyOverdue
	}
	return pairing.At, wait
}

// isInitiator reports whether this node goes first with the target.
func (m *Machine) isInitiator(b pairContext) bool {
	find := func(keys []Key, g uint64) Key {
		i := slices.IndexFunc(keys, func(k Key) bool { return k.Generation == g })
		return keys[i]
	}
	return m.initiator(find(b.in.Own.Keys, b.target.Own), find(b.peer.Keys, b.target.Peer), b.peer.UID)
}

// fanIn returns the time over which peers spread the exchanges after a change that all
// of them learn at once.
func (m *Machine) fanIn(b pairContext) time.Duration {
	return time.Duration(len(b.in.Peers)) * time.Second / pairingsPerSecond
}
