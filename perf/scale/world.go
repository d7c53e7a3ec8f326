// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/perf/scale/internal/price"
	"github.com/sealane/sealane/perf/scale/internal/sim"
	"github.com/sealane/sealane/perf/scale/internal/wire"
)

// world is the cluster in one scenario: an API server, the authors and the nodes
// that are observed.
type world struct {
	clock    *sim.Clock
	registry *registry
	authors  []*author
	observed []*node
	price    price.Price
	dir      string
	rnd      *rand.Rand
	err      error // the first

	writes int
	bytes  int // to one watcher
	goal   func(*node, int, rotation.PeerDecision) bool
}

func (w *world) fail(err error) {
	if err != nil && w.err == nil {
		w.err = err
	}
}

func (w *world) spread(most time.Duration) time.Duration {
	return time.Duration(w.rnd.Int64N(int64(most) + 1))
}

// fanIn is the time over which peers spread exchanges, and poll the time between two looks
// at the kernel while something goes on, both as in keymgr/rotation.
func (w *world) fanIn() time.Duration { return time.Duration(len(w.authors)) * time.Second / 200 }

func (w *world) poll() time.Duration {
	return max(100*time.Millisecond, time.Duration(len(w.authors))*time.Millisecond)
}

// lag is how long a peer needs to bring something to its lanes: as long as a pass
// takes the observed nodes.
func (w *world) lag() time.Duration {
	n := w.observed[0]
	c := n.spent
	all := c.Decode + c.Verify + c.Observe + c.Decide + c.Plan
	return max(time.Millisecond, all/time.Duration(max(1, c.passes+c.glances)))
}

// announce writes a statement to the API server, whose watchers learn of it.
func (w *world) announce(a *author) {
	w.writes++
	w.bytes += len(a.line)
	w.mark(a)
	for _, n := range w.observed {
		w.clock.After(50*time.Millisecond+w.spread(100*time.Millisecond), func() {
			if !n.up {
				return // it lists everything when it comes
			}
			n.receive(a)
			if n.author == a {
				w.fromSelf(n)
			} else if a.self == nil || a.self != n {
				w.expect(n, a)
			}
		})
	}
}

// mark notes since when something is awaited.
func (w *world) mark(a *author) {
	if len(a.keys) == 2 {
		w.report(a)
		for _, n := range w.observed {
			n.await(a, w.clock.Now())
		}
	}
}

func (n *node) await(a *author, now time.Time) {
	if n.author != a {
		n.since[a.index] = now
		return
	}
	for i := range n.since {
		if i != a.index && n.since[i].IsZero() {
			n.since[i] = now
		}
	}
}

// report is a change of a NodeKey's status: everybody reads it, and nobody acts.
func (w *world) report(a *author) {
	w.writes++
	w.bytes += len(a.line)
	for _, n := range w.observed {
		if n.up {
			sim.Measure(&n.spent.Decode, func() {
				_, err := wire.Decode(a.line)
				w.fail(err)
			})
		}
	}
}

// fromSelf lets everybody see what an observed node has published.
func (w *world) fromSelf(n *node) {
	for _, a := range w.authors {
		if a != n.author {
			w.expect(n, a)
		}
	}
}

func target(n *node, a *author) rotation.Pair {
	s := rotation.Pair{Peer: a.newest().Generation}
	if stmt, err := keymgr.ParseStatement(n.shown.Payload); err == nil {
		s.Own = stmt.Keys[len(stmt.Keys)-1].Generation
	}
	return s
}

// goesFirst reports whether the peer has the older of two keys.
func goesFirst(a *author, n *node) bool {
	x, y := a.newest(), n.newest()
	return cmp.Or(x.NotBefore.Compare(y.NotBefore), cmp.Compare(a.live.ID.UID, n.live.ID.UID)) < 0
}

// expect lets a peer ask for a preshared key if it is its turn.
func (w *world) expect(n *node, a *author) {
	s := target(n, a)
	if _, done := n.paired[a.index][s]; done || s.Own == 0 || !goesFirst(a, n) {
		return
	}
	w.clock.After(w.spread(w.fanIn()), func() { w.askedBy(n, a, s) })
}

func (w *world) askedBy(n *node, a *author, s rotation.Pair) {
	if _, done := n.paired[a.index][s]; done || s != target(n, a) {
		return
	}
	if !n.up || !a.up {
		w.clock.After(refused+w.spread(refused), func() { w.askedBy(n, a, s) })
		return
	}
	w.agree(n, a.index, s)
}

// agree is an exchange that a peer began.
func (w *world) agree(n *node, i int, s rotation.Pair) {
	n.spent.exchanges++
	n.spent.Exchange += w.price.CPU
	n.pair(i, s, rotation.Pairing{At: w.clock.Now()})
	n.timer(0)
}

func (n *node) pair(i int, s rotation.Pair, p rotation.Pairing) {
	if n.paired[i] == nil {
		n.paired[i] = map[rotation.Pair]rotation.Pairing{}
	}
	for old := range n.paired[i] { // of keys that are gone
		if old.Own+1 < s.Own || old.Peer+1 < s.Peer {
			delete(n.paired[i], old)
		}
	}
	n.paired[i][s] = p
}

// ask begins exchanges, no more than so many at a time.
func (n *node) ask(asks map[string]rotation.Pair) {
	for i, a := range n.w.authors {
		if slot, ok := asks[a.live.ID.UID]; ok {
			n.backlog = append(n.backlog, question{i, slot})
		}
	}
	for n.asking < maxAsking && len(n.backlog) > 0 {
		q := n.backlog[0]
		n.backlog = n.backlog[1:]
		n.asking++
		wait := n.w.price.CPU*2 + n.w.lag()
		if !n.w.authors[q.to].up {
			wait = refused
		}
		n.w.clock.After(wait, func() { n.answered(q) })
	}
}

func (n *node) answered(q question) {
	a := n.w.authors[q.to]
	n.asking--
	known := false
	for _, k := range a.keys {
		known = known || k.Generation == q.slot.Peer
	}
	ok := a.up && known
	if ok {
		n.spent.exchanges++
		n.spent.Exchange += n.w.price.CPU
		n.pair(q.to, q.slot, rotation.Pairing{At: n.w.clock.Now(), Client: true})
	} else {
		n.spent.failures++
	}
	n.results = append(n.results, result{a.live.ID.UID, ok})
	n.timer(0)
	n.ask(nil)
}

// observe replaces an author by a node that has been running for an hour.
func (w *world) observe(i int) (*node, error) {
	a := w.authors[i]
	n := &node{
		author: a, w: w, marks: marks{}, have: make([]keymgr.Signed, len(w.authors)), peers: make([]keymgr.Peer, len(w.authors)),
		kernel: kernel{links: make([][]link, len(w.authors)), active: make([]rotation.Pair, len(w.authors))},
		paired: make([]map[rotation.Pair]rotation.Pairing, len(w.authors)), since: make([]time.Time, len(w.authors)),
	}
	var err error
	n.identity, err = identity.Open(identity.Config{
		Dir: filepath.Join(w.dir, fmt.Sprint(i, "-", w.clock.Now().Unix())), Node: a.live.ID, TrustDomain: trustDomain, Clock: w.clock.Now,
	})
	if err != nil {
		return nil, err
	}
	csr, err := n.identity.CSR()
	if err != nil {
		return nil, err
	}
	chain, err := w.registry.issue(csr, a.live)
	if err != nil {
		return nil, err
	}
	if err := n.identity.SetCertificate(chain, w.registry.authority.Bundle()); err != nil {
		return nil, err
	}
	key, err := n.identity.WGKeys().Ensure()
	if err != nil {
		return nil, err
	}
	a.self, n.ready = n, key.Generation
	s, err := n.identity.Sign(identity.StatementInput{
		Keys: []identity.WGKey{key}, BasePort: overlay.DefaultBasePort, Endpoints: a.live.Addresses, PodCIDRs: a.live.PodCIDRs, PSK: keymgr.PSKRequired, PSKPort: 51875,
	})
	if err != nil {
		return nil, err
	}
	n.shown = s
	return n, n.say(s, w.clock.Now())
}

// settle puts an observed node where it is when all is well: verified, paired, with
// a session with everybody. Preshared keys are of the given age at most.
func (w *world) settle(n *node, age time.Duration) error {
	if err := n.start(); err != nil {
		return err
	}
	for i, a := range w.authors {
		s, err := wire.Decode(a.line)
		if err != nil {
			return err
		}
		n.have[i] = s
	}
	n.verify()
	for i, a := range w.authors {
		if a == n.author {
			continue
		}
		s, first := target(n, a), !goesFirst(a, n)
		began := w.clock.Now().Add(-w.spread(rekey))
		n.pair(i, s, rotation.Pairing{At: w.clock.Now().Add(-w.spread(age)), Client: first})
		n.kernel.links[i] = []link{{
			Pair: s, key: n.peers[i].Keys[0].Key(), initiates: first, begins: began, uses: began, allowedIPs: n.peers[i].PodCIDRs,
		}}
		n.kernel.active[i] = s
	}
	n.wake()
	return w.err
}
