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
	Self  string
	Times Times
	// Spread draws a duration from [0, most) by lot; nil means math/rand.
	Spread func(most time.Duration) time.Duration
}

// Machine remembers what a node saw in earlier steps: since when something is
// awaited, and when something last arrived. It is not safe for concurrent use.
type Machine struct {
	cfg   Config
	start time.Time // of the first step
	peers map[string]*memory
	// withdrawn is the only generation in this node's statement while it retires the
	// one before, and withdrawnAt when that was first seen.
	withdrawn   uint64
	withdrawnAt time.Time
}

// New returns a machine that has seen nothing.
func New(cfg Config) *Machine {
	if cfg.Spread == nil {
		cfg.Spread = func(most time.Duration) time.Duration { return time.Duration(rand.Int64N(int64(most) + 1)) }
	}
	return &Machine{cfg: cfg, peers: map[string]*memory{}}
}

// Step decides what should be so now. The same input a moment later gives the same
// decision, but that an exchange is asked for once.
func (m *Machine) Step(in Input) Decision {
	if m.start.IsZero() {
		m.start = in.Now
	}
	m.forget(in.Peers)
	d := Decision{Peers: make(map[string]Pair, len(in.Peers)), Next: idle}
	for _, p := range in.Peers {
		mem := m.peers[p.UID]
		if mem == nil {
			mem = newMemory()
			m.peers[p.UID] = mem
		}
		mem.observe(in.Now, p.Paths)
		pair := m.pair(in, p, mem)
		d.Peers[p.UID] = pair
		if !pair.Live || len(p.Keys) > 1 || mem.awaited != (Slot{}) {
			d.Next = 0
		}
	}
	m.node(in, &d)
	if d.Next == 0 || d.State != Steady {
		d.Next = max(pollLeast, 10*perPeer*time.Duration(len(in.Peers)))
	}
	return d
}

// Exchanged tells how the exchange went that a decision asked for. What it agreed
// on is in the next Input.
func (m *Machine) Exchanged(uid string, ok bool, now time.Time) {
	mem := m.peers[uid]
	if mem == nil {
		return
	}
	mem.exchanging = false
	wait := min(retryLeast<<min(mem.failures, 10), retryMost)
	mem.failures++
	if ok {
		mem.failures, mem.lot, wait = 0, 0, retryMost
	}
	mem.retry = now.Add(wait/2 + m.cfg.Spread(wait/2))
}

// forget drops what was remembered of peers that are gone.
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

// memory is what is remembered of one peer.
type memory struct {
	paths map[Slot]*trace
	// lost are slots whose device went away with a session that the peer still has:
	// this node calls, whoever's part it is.
	lost map[Slot]bool
	// heard is when the peer was last heard of, by any path.
	heard time.Time
	// withdrawn is when a key of the peer's was first seen to be withdrawn.
	withdrawn map[uint64]time.Time
	// active is what was answered last.
	active Slot
	// awaited is the slot whose preshared key is missing, since when, and the part
	// that lot has in the wait.
	awaited Slot
	since   time.Time
	jitter  time.Duration
	// exchanging is set from asking for an exchange to its end.
	exchanging bool
	asked      Slot // by the newest exchange
	failures   int
	retry      time.Time     // not before, for the same slot
	lot        time.Duration // the part that lot has in the age of the next preshared key
}

func newMemory() *memory {
	return &memory{paths: map[Slot]*trace{}, lost: map[Slot]bool{}, withdrawn: map[uint64]time.Time{}}
}

// withdraw notes which keys the peer has withdrawn, and forgets those that are gone.
func (m *memory) withdraw(now time.Time, keys []Key) {
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

// trace is the traffic of one slot, as far as it was seen.
type trace struct {
	first    time.Time // when the slot was first seen
	received uint64
	arrived  time.Time // when received last changed; zero if it never did
	// sent is the counter when something last arrived, and unanswered when more than
	// keepalives, which nobody answers, was first seen to have been sent since.
	sent       uint64
	unanswered time.Time
	// resting is until when the slot is not used, for it fell silent.
	resting time.Time
	seen    bool // in this step
	live    bool // it had a session
}

func (m *memory) observe(now time.Time, paths []Path) {
	for _, p := range paths {
		t := m.paths[p.Slot]
		if t == nil || p.Received < t.received || p.Sent < t.sent { // new, or made anew
			m.lost[p.Slot] = m.lost[p.Slot] || t != nil && t.live
			t = &trace{first: now, received: p.Received, sent: p.Sent}
			m.paths[p.Slot] = t
		}
		t.seen, t.live = true, !p.Handshake.IsZero()
		t.note(now, p)
		m.heard = latest(m.heard, t.arrived, p.Handshake)
	}
	for slot, t := range m.paths {
		if !t.seen {
			m.lost[slot] = t.live
			delete(m.paths, slot)
		}
		t.seen = false
	}
}

func (t *trace) note(now time.Time, p Path) {
	switch {
	case p.Received != t.received:
		t.received, t.arrived, t.sent, t.unanswered = p.Received, now, p.Sent, time.Time{}
	case t.unanswered.IsZero() && p.Sent > t.sent+keepalives(now.Sub(latest(t.first, t.arrived))):
		t.unanswered = now
	}
}

// keepalives is how many bytes of keepalives may be sent in a time, at the most.
func keepalives(d time.Duration) uint64 { return keepaliveSize * (2 + uint64(d/keepaliveTimeout)) }

// silent tells whether the slot has been sent to for long without an answer.
func (t *trace) silent(now time.Time) bool {
	return !t.unanswered.IsZero() && now.Sub(t.unanswered) >= silence
}
