// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotation

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Config configures a Machine.
type Config struct {
	// Self is this node's UID.
	Self string
	// Times are the waiting times; TimesFor returns good ones.
	Times Times
	// Spread returns a random duration in [0, most]; nil means math/rand.
	Spread func(most time.Duration) time.Duration
}

// Machine remembers what a node saw in earlier steps: since when it waits for
// something, and when something last arrived. It is not safe for concurrent use.
type Machine struct {
	cfg   Config
	start time.Time // of the first step
	peers map[string]*peerState
	// withdrawn is the only generation in this node's statement while the one before
	// retires, and withdrawnAt is when the machine first saw that.
	withdrawn   uint64
	withdrawnAt time.Time
}

// New returns a machine that has seen nothing.
func New(cfg Config) *Machine {
	if cfg.Spread == nil {
		cfg.Spread = func(most time.Duration) time.Duration { return time.Duration(rand.Int64N(int64(most) + 1)) }
	}
	return &Machine{cfg: cfg, peers: map[string]*peerState{}}
}

// Step decides what should be so now. The same input a moment later gives the same
// decision, except that each exchange is asked for once.
func (m *Machine) Step(in Input) Decision {
	if m.start.IsZero() {
		m.start = in.Now
	}
	m.forget(in.Peers)
	d := Decision{Peers: make(map[string]PeerDecision, len(in.Peers)), Next: idle}
	for _, p := range in.Peers {
		state := m.peers[p.UID]
		if state == nil {
			state = newPeerState()
			m.peers[p.UID] = state
		}
		state.observe(in.Now, p.Paths)
		pair := m.decidePeer(in, p, state)
		d.Peers[p.UID] = pair
		if !pair.Live || len(p.Keys) > 1 || state.awaited != (Pair{}) {
			d.Next = 0
		}
	}
	m.node(in, &d)
	if d.Next == 0 || d.State != Steady {
		d.Next = max(pollLeast, 10*perPeer*time.Duration(len(in.Peers)))
	}
	return d
}

// Exchanged reports how an exchange ended that a decision asked for. The key that it
// agreed on belongs into the next Input.
func (m *Machine) Exchanged(uid string, ok bool, now time.Time) {
	state := m.peers[uid]
	if state == nil {
		return
	}
	state.exchanging = false
	wait := min(retryLeast<<min(state.failures, 10), retryMost)
	state.failures++
	if ok {
		state.failures, state.ageJitter, wait = 0, 0, retryMost
	}
	state.retry = now.Add(wait/2 + m.cfg.Spread(wait/2))
}

// forget drops the states of peers that are gone.
func (m *Machine) forget(peers []Peer) {
	if len(m.peers) == 0 {
		return
	}
	present := make(map[string]bool, len(peers))
	for _, p := range peers {
		present[p.UID] = true
	}
	for uid := range m.peers {
		if !present[uid] {
			delete(m.peers, uid)
		}
	}
}

// peerState is what the machine remembers of one peer.
type peerState struct {
	paths map[Pair]*pathStats
	// lost holds the pairs whose device went away with a session that the peer still
	// has: this node starts a handshake even if it is not the initiator.
	lost map[Pair]bool
	// heard is when anything last arrived from the peer, on any path.
	heard time.Time
	// withdrawn is when the machine first saw that the peer had withdrawn a key, by
	// generation.
	withdrawn map[uint64]time.Time
	// active is the active pair of the last decision.
	active Pair
	// awaited is the pair whose preshared key is missing, since is since when, and jitter
	// is the random part of the wait.
	awaited Pair
	since   time.Time
	jitter  time.Duration
	// exchanging is set from the request of an exchange to its end.
	exchanging bool
	asked      Pair // of the newest exchange
	failures   int
	retry      time.Time     // when to try the same pair again
	ageJitter  time.Duration // random part of the age of the next preshared key; 0: not drawn yet
}

func newPeerState() *peerState {
	return &peerState{paths: map[Pair]*pathStats{}, lost: map[Pair]bool{}, withdrawn: map[uint64]time.Time{}}
}

// withdraw records which keys the peer has withdrawn, and forgets those that are gone.
func (m *peerState) withdraw(now time.Time, keys []Key) {
	for _, k := range keys {
		if _, noted := m.withdrawn[k.Generation]; k.Withdrawn && !noted {
			m.withdrawn[k.Generation] = now
		}
	}
	for g := range m.withdrawn {
		if !slices.ContainsFunc(keys, func(k Key) bool { return k.Withdrawn && k.Generation == g }) {
			delete(m.withdrawn, g)
		}
	}
}

// pathStats is what the machine saw of the traffic of one pair.
type pathStats struct {
	first    time.Time // when the pair was first seen
	received uint64
	arrived  time.Time // when received last changed; zero if it never did
	// sent is the counter when something last arrived. unanswered is when the machine
	// first saw that more than keepalives, which need no answer, was sent since.
	sent       uint64
	unanswered time.Time
	// suspendedUntil is until when the pair is not used because it fell silent.
	suspendedUntil time.Time
	seen           bool // in this step
	live           bool // it had a session
}

func (m *peerState) observe(now time.Time, paths []Path) {
	for _, p := range paths {
		t := m.paths[p.Pair]
		if t == nil || p.Received < t.received || p.Sent < t.sent { // new, or created again
			m.lost[p.Pair] = m.lost[p.Pair] || t != nil && t.live
			t = &pathStats{first: now, received: p.Received, sent: p.Sent}
			m.paths[p.Pair] = t
		}
		t.seen, t.live = true, !p.Handshake.IsZero()
		t.note(now, p)
		m.heard = latest(m.heard, t.arrived, p.Handshake)
	}
	for pair, t := range m.paths {
		if !t.seen {
			m.lost[pair] = t.live
			delete(m.paths, pair)
		}
		t.seen = false
	}
}

func (t *pathStats) note(now time.Time, p Path) {
	switch {
	case p.Received != t.received:
		t.received, t.arrived, t.sent, t.unanswered = p.Received, now, p.Sent, time.Time{}
	case t.unanswered.IsZero() && p.Sent > t.sent+keepalives(now.Sub(latest(t.first, t.arrived))):
		t.unanswered = now
	}
}

// keepalives returns how many bytes of keepalives are sent in a time at most.
func keepalives(d time.Duration) uint64 { return keepaliveSize * (2 + uint64(d/keepaliveTimeout)) }

// silent reports whether this node has sent on the pair for long without an answer.
func (t *pathStats) silent(now time.Time) bool {
	return !t.unanswered.IsZero() && now.Sub(t.unanswered) >= silence
}
