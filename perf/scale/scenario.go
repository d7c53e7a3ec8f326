// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/renewal"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/perf/scale/internal/price"
	"github.com/sealane/sealane/perf/scale/internal/sim"
)

const (
	// firstWave is how long the first rotation of all nodes takes that joined at the
	// same moment: from 70 to 90 % of the period.
	firstWave = rotation.DefaultPeriod / 5
	// rebooting is the time within which all nodes come back in a mass restart.
	rebooting = time.Minute
	longest   = 2 * time.Hour
)

// row is what came out of a scenario.
type row struct {
	name      string
	simulated time.Duration
	factor    float64 // from what was simulated to the whole
	first     costs   // of the first observed node
	each      costs   // mean of those that stand for all
	firstOnly bool    // the first one is a case of its own
	bytes     float64 // to one watcher
	writes    float64
	converge  []time.Duration
	rotation  []time.Duration
}

// arrived is the usual goal: the newest combination of keys carries traffic.
func arrived(n *node, i int, p rotation.PeerDecision) bool {
	return p.Live && p.Active == target(n, n.w.authors[i])
}

type bench struct {
	registry *registry
	authors  []*author
	price    price.Price
	dir      string
	observed int
	window   time.Duration
	hold     time.Duration // from publishing a key to withdrawing the one before
	memory   uint64        // of a verifier, bytes
}

// world makes a fresh cluster around the same statements.
func (b *bench) world(age time.Duration) (*world, error) {
	w := &world{
		clock: b.registry.clock, registry: b.registry, authors: b.authors, price: b.price, dir: b.dir,
		rnd: rand.New(rand.NewPCG(1, 1)), goal: arrived,
	}
	w.clock.Clear()
	for _, a := range b.authors {
		a.self, a.up = nil, true
	}
	for i := range b.observed {
		n, err := w.observe(i)
		if err != nil {
			return nil, err
		}
		w.observed = append(w.observed, n)
	}
	for _, n := range w.observed {
		if err := w.settle(n, age); err != nil {
			return nil, err
		}
	}
	w.clock.Until(w.clock.Now().Add(2*time.Second), never)
	for _, n := range w.observed {
		n.spent = costs{}
	}
	return w, w.err
}

func never() bool { return false }

// quiet is a cluster in which nothing happens but that preshared keys are renewed.
func (b *bench) quiet(name string, renew time.Duration) (row, error) {
	w, err := b.world(renew)
	if err != nil {
		return row{}, err
	}
	for _, n := range w.observed {
		for i, a := range w.authors {
			if s := target(n, a); renew > 0 && a != n.author && goesFirst(a, n) {
				if at := w.spread(renew); at < b.window {
					w.clock.After(at, func() { w.agree(n, i, s) })
				}
			}
		}
	}
	w.clock.Until(w.clock.Now().Add(b.window), never)
	return w.row(name, b.window, float64(time.Hour)/float64(b.window)), w.err
}

// one node rotates.
func (b *bench) one() (row, error) {
	w, err := b.world(0)
	if err != nil {
		return row{}, err
	}
	n, start := w.observed[0], w.clock.Now()
	n.asked = start
	n.wake()
	w.clock.Until(start.Add(longest), func() bool { return len(n.took) > 0 || w.err != nil })
	b.hold = w.clock.Now().Sub(start) - rotation.TimesFor(rotation.DefaultPeriod).Propagation
	r := w.row("(a) one node rotates", w.clock.Now().Sub(start), 1)
	r.firstOnly = true
	return r, w.err
}

// all nodes rotate once, in the shortest time that their schedule gives.
func (b *bench) all() (row, error) {
	w, err := b.world(0)
	if err != nil {
		return row{}, err
	}
	start, count := w.clock.Now(), 0
	share := float64(b.window) / float64(firstWave)
	for _, i := range w.rnd.Perm(len(w.authors))[:max(1, int(share*float64(len(w.authors))))] {
		a := w.authors[i]
		if a.self != nil {
			continue
		}
		count++
		w.clock.After(w.spread(b.window), func() {
			w.rotate(a)
			w.clock.After(b.hold, func() { w.withdraw(a) })
		})
	}
	w.clock.Until(start.Add(b.window+b.hold+time.Minute), func() bool { return w.err != nil })
	return w.row("(b) every node rotates once", w.clock.Now().Sub(start), float64(len(w.authors))/float64(max(1, count))), w.err
}

// rotate publishes a second key of a node that is not observed.
func (w *world) rotate(a *author) {
	w.fail(a.generation(w.clock.Now()))
	w.fail(a.sign(w.clock.Now()))
	w.announce(a)
}

func (w *world) withdraw(a *author) {
	a.keys = a.keys[len(a.keys)-1:]
	w.fail(a.sign(w.clock.Now()))
	w.announce(a)
}

// restart reboots everybody within a minute.
func (b *bench) restart() (row, error) {
	w, err := b.world(0)
	if err != nil {
		return row{}, err
	}
	// What is awaited is that there is traffic at all.
	w.goal = func(_ *node, _ int, p rotation.PeerDecision) bool { return p.Live }
	start := w.clock.Now()
	w.clock.Clear()
	for _, a := range w.authors {
		a.up = false
		at := start.Add(w.spread(rebooting))
		if a.self != nil {
			w.clock.At(at, func() { w.boot(a.self) })
			continue
		}
		w.clock.At(at, func() { w.come(a) })
	}
	w.clock.Until(start.Add(longest), func() bool {
		return w.err != nil || !slices.ContainsFunc(w.observed, func(n *node) bool { return len(n.arrived) < len(w.authors)-1 })
	})
	return w.row("(c) every node reboots within a minute", w.clock.Now().Sub(start), 1), w.err
}

// come is a node that is not observed, back after a reboot: it answers at once. Its
// next key is made later, at a random time.
func (w *world) come(a *author) {
	a.up = true
	for _, n := range w.observed {
		w.expect(n, a)
	}
}

// boot starts an observed node from its marks, and lists the NodeKeys.
func (w *world) boot(n *node) {
	now := w.clock.Now()
	n.up, n.boot, n.ready, n.busy, n.pending = true, now, 0, now, false
	n.kernel = kernel{links: make([][]link, len(w.authors)), active: make([]rotation.Pair, len(w.authors))}
	n.paired = make([]map[rotation.Pair]rotation.Pairing, len(w.authors))
	n.peers = make([]keymgr.Peer, len(w.authors))
	n.plan.Tunnels = nil
	n.busy = now.Add(sim.Measure(&n.spent.Start, func() { w.fail(n.start()) }))
	for i, a := range w.authors {
		n.inbox, n.from = append(n.inbox, a.line), append(n.from, i)
		if n == w.observed[0] {
			w.bytes += len(a.line)
		}
		if a != n.author {
			n.since[i] = now
		}
	}
	n.wake()
	w.fromSelf(n)
}

// reissue renews every certificate under a new intermediate, at the quickest pace
// that nodes ever renew at.
func (b *bench) reissue() (row, error) {
	clock := b.registry.clock
	clock.Set(clock.Now().Add(20 * time.Hour))
	for _, a := range b.authors { // a statement lasts long enough, but is refreshed
		if err := a.sign(clock.Now()); err != nil {
			return row{}, err
		}
	}
	w, err := b.world(0)
	if err != nil {
		return row{}, err
	}
	w.goal = func(n *node, i int, p rotation.PeerDecision) bool {
		return p.Live && n.peers[i].Seq == w.authors[i].seq
	}
	if err := b.registry.authority.Renew(context.Background()); err != nil {
		return row{}, err
	}
	span := renewal.Span(len(w.authors))
	window := min(span, b.window)
	start, count := w.clock.Now(), 0
	for _, a := range w.authors {
		if at := w.spread(span); at < window && a.self == nil {
			count++
			w.clock.After(at, func() { w.renew(a) })
		}
	}
	w.clock.Until(start.Add(window+time.Second), func() bool { return w.err != nil })
	return w.row("(d) every certificate is renewed under a new intermediate", w.clock.Now().Sub(start), float64(len(w.authors))/float64(max(1, count))), w.err
}

func (w *world) renew(a *author) {
	w.fail(w.registry.certify(a))
	w.writes += 3 // the request, its approval, the certificate
	w.fail(a.sign(w.clock.Now()))
	for _, n := range w.observed {
		n.since[a.index] = w.clock.Now()
	}
	w.announce(a)
	w.report(a)
}

// row sums up.
func (w *world) row(name string, simulated time.Duration, factor float64) row {
	r := row{name: name, simulated: simulated, factor: factor, first: w.observed[0].spent, bytes: float64(w.bytes), writes: float64(w.writes)}
	others := w.observed
	if len(others) > 1 && name[:3] == "(a)" {
		others = others[1:]
	}
	for _, n := range others {
		r.each = r.each.plus(n.spent)
	}
	r.each = r.each.over(len(others))
	for _, n := range w.observed {
		r.converge = append(r.converge, n.arrived...)
		r.rotation = append(r.rotation, n.took...)
	}
	slices.Sort(r.converge)
	slices.Sort(r.rotation)
	return r
}
