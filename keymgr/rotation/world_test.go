// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotation

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// world is a cluster with everything that machines act on, so simple that it is
// plainly right: disks, an API server, kernels with WireGuard's sessions, and the
// exchange of preshared keys.
type world struct {
	now   time.Time
	rnd   *rand.Rand
	nodes []*node
	ids   int // of sessions and preshared keys
}

// statement is what a node has signed.
type statement struct {
	seq  int
	keys []Key
}

// link is what a node's kernel has of one pair towards one peer.
type link struct {
	psk       int // 0: none
	sessions  map[int]time.Time
	current   int // session that is sent by; 0: none
	handshake time.Time
	initiates bool
	rx, tx    uint64
	owes      time.Time // since when data has not been answered
	kept      time.Time // when something was last sent
	waits     time.Time // since when data has been sent and nothing has come
}

const (
	// keepalive is how often the end that starts handshakes is heard at least.
	keepalive = 25 * time.Second
	// rekeyTimeout is how long after keepaliveTimeout a kernel that has sent data and
	// heard nothing starts a handshake, whoever's part it is (REKEY_TIMEOUT).
	rekeyTimeout = 5 * time.Second
	// initiation and response are the messages of a handshake, in bytes.
	initiation, response = 148, 92
)

type node struct {
	w    *world
	uid  string
	disk struct {
		keys   []Key
		signed statement
	}
	api    statement            // what the API server has of this node
	views  map[string]statement // what this node knows of the others
	seen   map[string]map[uint64]Key
	boot   time.Time
	asked  time.Time
	broken time.Time // compromised
	down   time.Time // the daemon runs again from then on
	mute   time.Time // pods send nothing until then

	devices uint64                       // newest generation with devices
	links   map[string]map[Pair]*link    // kernel
	active  map[string]Pair              // kernel: forwarding
	store   map[string]map[Pair]*pairing // the daemon's memory
	machine *Machine
	calls   []call // exchanges asked for
	state   State
	waiting []string
	times   Times
}

type pairing struct {
	Pairing
	psk int
}

type call struct {
	peer string
	pair Pair
}

func newWorld(seed uint64, size int, times Times) *world {
	w := &world{now: time.Unix(1_700_000_000, 0), rnd: rand.New(rand.NewPCG(seed, 1))}
	for i := range size {
		n := &node{
			w: w, uid: fmt.Sprintf("n%d", i), views: map[string]statement{}, seen: map[string]map[uint64]Key{}, times: times,
			links: map[string]map[Pair]*link{}, active: map[string]Pair{},
		}
		n.restart()
		w.nodes = append(w.nodes, n)
	}
	return w
}

func (w *world) node(uid string) *node {
	i := slices.IndexFunc(w.nodes, func(n *node) bool { return n.uid == uid })
	return w.nodes[i]
}

func (w *world) id() int {
	w.ids++
	return w.ids
}

func (s Pair) mirror() Pair { return Pair{Own: s.Peer, Peer: s.Own} }

// restart is the daemon's: what it remembered is gone.
func (n *node) restart() {
	n.store, n.calls = map[string]map[Pair]*pairing{}, nil
	n.machine = New(Config{Self: n.uid, Times: n.times, Spread: func(most time.Duration) time.Duration {
		return time.Duration(n.w.rnd.Int64N(int64(most) + 1))
	}})
}

// reboot is the machine's: the kernel's state is gone too.
func (n *node) reboot() {
	n.restart()
	n.links, n.active, n.devices, n.boot = map[string]map[Pair]*link{}, map[string]Pair{}, 0, n.w.now
}

// keysOf gives the keys of a peer that may be used: those in the statement that
// this node knows, and those that it knew before as long as they fit.
func (n *node) keysOf(uid string) []Key {
	view := n.views[uid]
	if n.seen[uid] == nil {
		n.seen[uid] = map[uint64]Key{}
	}
	listed := map[uint64]bool{}
	var keys []Key
	for _, k := range view.keys {
		keys = append(keys, k)
		listed[k.Generation%2] = true
		for g := range n.seen[uid] {
			if g%2 == k.Generation%2 {
				delete(n.seen[uid], g)
			}
		}
		n.seen[uid][k.Generation] = k
	}
	for _, g := range slices.Sorted(maps.Keys(n.seen[uid])) {
		k := n.seen[uid][g]
		if listed[g%2] {
			continue
		}
		k.Withdrawn = true
		keys = append(keys, k)
	}
	return keys
}

func (n *node) input() Input {
	in := Input{Now: n.w.now, Ready: n.devices, Boot: n.boot, Requested: n.asked, Compromised: n.broken}
	in.Own.Keys = slices.Clone(n.disk.keys)
	for _, k := range n.disk.signed.keys {
		in.Own.Signed = append(in.Own.Signed, k.Generation)
	}
	if n.api.seq == n.disk.signed.seq {
		in.Own.Announced = in.Own.Signed
	}
	for _, o := range n.w.nodes {
		if o == n || len(n.views[o.uid].keys) == 0 {
			continue
		}
		p := Peer{UID: o.uid, Keys: n.keysOf(o.uid), Secrecy: Required, Paired: map[Pair]Pairing{}}
		for s, v := range n.store[o.uid] {
			p.Paired[s] = v.Pairing
		}
		for _, s := range order(n.links[o.uid]) {
			l := n.links[o.uid][s]
			p.Paths = append(p.Paths, Path{
				Pair: s, Handshake: l.handshake, Received: l.rx, Sent: l.tx, Preshared: l.psk != 0, Initiates: l.initiates,
			})
		}
		in.Peers = append(in.Peers, p)
	}
	return in
}

// step makes a decision true, or as much of it as parts says: a daemon may die at
// any point.
func (n *node) step(parts int) {
	d := n.machine.Step(n.input())
	n.state, n.waiting = d.State, d.Waiting
	effects := []func(Decision){n.create, n.remove, n.install, n.publish}
	for i, effect := range effects {
		if i < parts {
			effect(d)
		}
	}
	for _, o := range n.w.nodes { // in order, to play the same each time
		if e := d.Peers[o.uid].Exchange; e != nil {
			n.calls = append(n.calls, call{peer: o.uid, pair: *e})
		}
	}
}

func (n *node) create(d Decision) {
	if d.Create == "" {
		return
	}
	k := Key{Generation: 1, Since: n.w.now.Truncate(time.Second), Requested: n.asked, Compromised: n.broken}
	if l := len(n.disk.keys); l > 0 {
		k.Generation = n.disk.keys[l-1].Generation + 1
	}
	n.disk.keys = append(n.disk.keys, k)
}

func (n *node) remove(d Decision) {
	if d.Remove == 0 {
		return
	}
	n.disk.keys = slices.DeleteFunc(n.disk.keys, func(k Key) bool { return k.Generation == d.Remove })
	for _, links := range n.links {
		maps.DeleteFunc(links, func(s Pair, _ *link) bool { return s.Own == d.Remove })
	}
}

func (n *node) install(d Decision) {
	if len(n.disk.keys) > 0 {
		n.devices = n.disk.keys[len(n.disk.keys)-1].Generation
	}
	for uid, p := range d.Peers {
		n.installPeer(uid, p)
	}
}

func (n *node) installPeer(uid string, p PeerDecision) {
	if n.links[uid] == nil {
		n.links[uid] = map[Pair]*link{}
	}
	keep := map[Pair]bool{}
	for _, c := range p.Install {
		if !slices.ContainsFunc(n.disk.keys, func(k Key) bool { return k.Generation == c.Own }) {
			continue // removed in this step
		}
		keep[c.Pair] = true
		l := n.links[uid][c.Pair]
		if l == nil {
			l = &link{sessions: map[int]time.Time{}}
			n.links[uid][c.Pair] = l
		}
		if v := n.store[uid][c.Pair]; v != nil {
			l.psk = v.psk
		}
		l.initiates = c.Initiate
	}
	if p.Active != (Pair{}) {
		n.active[uid] = p.Active
	}
	maps.DeleteFunc(n.links[uid], func(s Pair, _ *link) bool { return !keep[s] })
}

func (n *node) publish(d Decision) {
	if len(d.Publish) == 0 {
		return
	}
	have := make([]uint64, 0, 2)
	for _, k := range n.disk.signed.keys {
		have = append(have, k.Generation)
	}
	if slices.Equal(have, d.Publish) {
		return
	}
	s := statement{seq: n.disk.signed.seq + 1}
	for _, k := range n.disk.keys {
		if slices.Contains(d.Publish, k.Generation) {
			s.keys = append(s.keys, k)
		}
	}
	n.disk.signed = s
}

// exchange carries out one exchange; the answer may get lost.
func (n *node) exchange(c call, answer bool) {
	o := n.w.node(c.peer)
	knows := func(keys []Key, g uint64) bool {
		return slices.ContainsFunc(keys, func(k Key) bool { return k.Generation == g })
	}
	ok := !n.w.now.Before(o.down) && knows(o.views[n.uid].keys, c.pair.Own) && knows(o.disk.keys, c.pair.Peer)
	if ok {
		psk := n.w.id()
		o.agree(n.uid, c.pair.mirror(), pairing{Pairing{At: n.w.now}, psk})
		o.step(4) // it is in the kernel before the answer goes out
		if ok = answer; ok {
			n.agree(o.uid, c.pair, pairing{Pairing{At: n.w.now, Client: true}, psk})
		}
	}
	n.machine.Exchanged(c.peer, ok, n.w.now)
}

func (n *node) agree(uid string, s Pair, p pairing) {
	if n.store[uid] == nil {
		n.store[uid] = map[Pair]*pairing{}
	}
	n.store[uid][s] = &p
}

// network lets the kernels' timers run: sessions are begun, renewed and end, and
// packets go both ways between all nodes.
func (w *world) network() {
	for _, n := range w.nodes {
		for _, o := range w.nodes {
			links := n.links[o.uid]
			for _, s := range order(links) {
				w.timers(n, o, s, links[s])
			}
		}
	}
}

// order makes the play the same each time.
func order[V any](m map[Pair]V) []Pair {
	return slices.SortedFunc(maps.Keys(m), func(a, b Pair) int {
		return cmp.Or(cmp.Compare(a.Own, b.Own), cmp.Compare(a.Peer, b.Peer))
	})
}

func (w *world) timers(n, o *node, s Pair, l *link) {
	maps.DeleteFunc(l.sessions, func(_ int, at time.Time) bool { return w.now.Sub(at) > sessionEnd })
	if at, ok := l.sessions[l.current]; !ok || w.now.Sub(at) > 120*time.Second {
		if !ok {
			l.current = 0
		}
		if l.initiates || n.active[o.uid] == s {
			w.handshake(n, o, s, l)
		}
	} else if !l.waits.IsZero() && w.now.Sub(l.waits) > keepaliveTimeout+rekeyTimeout {
		l.waits = w.now
		w.handshake(n, o, s, l)
	}
	if n.active[o.uid] == s && !w.now.Before(n.mute) {
		if w.send(n, o, s, l, 1000) {
			o.links[n.uid][s.mirror()].owe(w.now)
		}
	} else if l.initiates && w.now.Sub(l.kept) > keepalive || !l.owes.IsZero() && w.now.Sub(l.owes) > keepaliveTimeout {
		w.send(n, o, s, l, keepaliveSize)
	}
}

// owe notes that data came in: the protocol answers it after a while.
func (l *link) owe(now time.Time) {
	if l.owes.IsZero() {
		l.owes = now
	}
}

func (w *world) handshake(n, o *node, s Pair, l *link) {
	r := o.links[n.uid][s.mirror()]
	if r == nil || r.psk != l.psk {
		return
	}
	id := w.id()
	l.sessions[id], l.current, l.handshake = w.now, id, w.now
	r.sessions[id] = w.now
	l.tx, l.rx, r.tx, r.rx, l.waits = l.tx+initiation, l.rx+response, r.tx+response, r.rx+initiation, time.Time{}
	w.send(n, o, s, l, keepaliveSize) // confirms
}

// send reports whether a packet arrived.
func (w *world) send(n, o *node, s Pair, l *link, size uint64) bool {
	if l.current == 0 {
		return false
	}
	l.tx += size
	l.owes, l.kept = time.Time{}, w.now
	if size > keepaliveSize && l.waits.IsZero() {
		l.waits = w.now
	}
	r := o.links[n.uid][s.mirror()]
	if r == nil {
		return false
	}
	if _, ok := r.sessions[l.current]; !ok {
		return false
	}
	r.rx += size
	r.waits = time.Time{}
	r.handshake = r.sessions[l.current]
	r.current = max(r.current, l.current)
	return true
}

func describe(n, o *node) string {
	text := fmt.Sprintf("%s (%s, keys %v, signed %v) towards %s: active %v;", n.uid, n.state, generations(n.disk.keys), generations(n.disk.signed.keys), o.uid, n.active[o.uid])
	for s, l := range n.links[o.uid] {
		text += fmt.Sprintf(" %v psk %d sessions %d current %d initiates %t;", s, l.psk, len(l.sessions), l.current, l.initiates)
	}
	return text + fmt.Sprintf(" knows %v", generations(n.views[o.uid].keys))
}

func generations(keys []Key) []uint64 {
	var out []uint64
	for _, k := range keys {
		out = append(out, k.Generation)
	}
	return out
}
