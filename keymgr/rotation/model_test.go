// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotation

import (
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// steps is how many events TestModel plays; more than a million.
const steps = 1_050_000

// TestModel plays random interleavings of everything that can happen to two to four
// nodes, and checks after each that no pair has lost its way. Now and then it lets
// things calm down, and everybody must have got where they wanted to.
func TestModel(t *testing.T) {
	total, first := 0, uint64(1)
	if text := os.Getenv("SEALANE_ROTATION_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("read SEALANE_ROTATION_SEED: %v", err)
		}
		first = n
	}
	for seed := first; total < steps; seed++ {
		times := TimesFor(0)
		times.AfterBoot = 0 // a game is too short for its lot
		p := play{t: t, w: newWorld(seed, 2+int(seed%3), times), met: map[[2]string]bool{}, seed: seed}
		for range 10 {
			for range 1500 {
				p.event()
				total++
			}
			total += p.calm()
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d events", total)
}

// calmTicks is how long a calm may last until everybody has arrived: half-seconds.
const calmTicks = 4000

type play struct {
	t    *testing.T
	w    *world
	seed uint64
	// met holds the ordered pairs that reached each other and had no reason to
	// lose that since.
	met   map[[2]string]bool
	count int
}

// event lets one thing happen.
func (p *play) event() {
	p.count++
	w, n := p.w, p.w.nodes[p.w.rnd.IntN(len(p.w.nodes))]
	up := !w.now.Before(n.down)
	switch roll := w.rnd.IntN(1000); {
	case roll < 400:
		if up {
			n.step(4)
		}
	case roll < 600:
		if up {
			n.api = n.disk.signed
		}
	case roll < 750:
		if o := w.nodes[w.rnd.IntN(len(w.nodes))]; o != n && up && o.api.seq > 0 {
			n.views[o.uid] = o.api
		}
	case roll < 850:
		if up && len(n.calls) > 0 {
			c := n.calls[0]
			n.calls = n.calls[1:]
			n.exchange(c, w.rnd.IntN(5) > 0)
		}
	case roll < 985:
		w.now = w.now.Add(time.Duration(w.rnd.IntN(1500)) * time.Millisecond)
		w.network()
	case roll < 989:
		n.asked = w.now.Add(p.off())
	case roll < 994: // the daemon dies in the middle of something, and is away for a while
		n.step(w.rnd.IntN(4))
		n.restart()
		n.down = w.now.Add(time.Duration(w.rnd.IntN(20)) * time.Second)
		p.excuseTorn(n)
	case roll < 996:
		n.reboot()
		p.excuse(n)
	case roll < 997:
		n.broken = w.now.Add(p.off())
		p.excuse(n)
	case roll < 999 && roll >= 998: // the machine is too busy to send anything
		n.mute = w.now.Add(time.Duration(w.rnd.IntN(60)) * time.Second)
	case roll < 998: // WireGuard in user space dies, and the daemon does not
		n.links, n.devices = map[string]map[Pair]*link{}, 0
		p.excuse(n)
	}
	p.check()
}

// off is how far an operator's clock is ahead: mostly right, or by minutes, or
// somebody has written a time that never comes.
func (p *play) off() time.Duration {
	return []time.Duration{0, 0, 5 * time.Minute, 1000 * time.Hour}[p.w.rnd.IntN(4)]
}

// excuse forgets the pairs of a node that cannot be expected to hold.
func (p *play) excuse(n *node) {
	for pair := range p.met {
		if pair[0] == n.uid || pair[1] == n.uid {
			delete(p.met, pair)
		}
	}
}

// excuseTorn forgets the pairs that a node which dies now leaves torn: if it does so
// again and again, nobody mends them.
func (p *play) excuseTorn(n *node) {
	for _, o := range p.w.nodes {
		if o != n && torn(n, o) {
			delete(p.met, [2]string{n.uid, o.uid})
			delete(p.met, [2]string{o.uid, n.uid})
		}
	}
}

func (p *play) check() {
	for _, n := range p.w.nodes {
		p.verified(n)
		for _, o := range p.w.nodes {
			if o == n {
				continue
			}
			pair := [2]string{n.uid, o.uid}
			reaches := p.reaches(n, o)
			if compromised(n) || compromised(o) {
				delete(p.met, pair)
				continue
			}
			if p.met[pair] && !reaches {
				p.t.Fatalf("seed %d, event %d: %s no longer reaches %s by %v: %s", p.seed, p.count, n.uid, o.uid, n.active[o.uid], p.describe(n, o))
			}
			if reaches && !deceived(n, o) && !torn(n, o) {
				p.met[pair] = true
			}
		}
	}
}

// compromised reports whether a node is about to break with a key on purpose.
func compromised(n *node) bool {
	return len(n.disk.keys) > 0 && Input{Compromised: n.broken}.compromised(n.disk.keys[0])
}

// reaches reports whether what n sends to o now would arrive.
func (p *play) reaches(n, o *node) bool {
	s := n.active[o.uid]
	l := n.links[o.uid][s]
	if l == nil || l.current == 0 {
		return false
	}
	r := o.links[n.uid][s.mirror()]
	if r == nil {
		return false
	}
	_, ok := r.sessions[l.current]
	return ok
}

// deceived reports whether n's kernel shows a session with o that o has lost: n cannot
// know until its kernel has waited for an answer.
func deceived(n, o *node) bool {
	for s, l := range n.links[o.uid] {
		if r := o.links[n.uid][s.mirror()]; l.current != 0 && (r == nil || r.sessions[l.current].IsZero()) {
			return true
		}
	}
	return false
}

// torn reports whether the answer to an exchange got lost: the ends differ on a
// preshared key, which n must agree on anew before the session ends.
func torn(n, o *node) bool {
	for s, l := range n.links[o.uid] {
		if r := o.links[n.uid][s.mirror()]; r != nil && r.psk != l.psk {
			return true
		}
	}
	return false
}

// verified: only keys that a statement listed are ever in the kernel, one per
// device, and none without a preshared key.
func (p *play) verified(n *node) {
	for uid, links := range n.links {
		devices := map[Pair]bool{}
		for s, l := range links {
			if l.psk == 0 {
				p.t.Fatalf("seed %d, event %d: %s has %s on %v without a preshared key", p.seed, p.count, n.uid, uid, s)
			}
			device := Pair{Own: s.Own % 2, Peer: s.Peer % 2}
			if devices[device] {
				p.t.Fatalf("seed %d, event %d: %s has two keys of %s on device %v", p.seed, p.count, n.uid, uid, device)
			}
			devices[device] = true
		}
	}
}

// calm lets time pass without trouble, and checks that everybody has arrived.
func (p *play) calm() (events int) {
	w := p.w
	for i := 0; i < calmTicks && !(i%100 == 0 && p.all(func(n *node) bool {
		return n.state == Steady && len(n.disk.keys) == 1 && len(n.machine.peers) == len(w.nodes)-1
	}) && i > 300); i++ {
		w.now = w.now.Add(500 * time.Millisecond)
		w.network()
		for _, n := range w.nodes {
			if w.now.Before(n.down) {
				continue
			}
			n.api = n.disk.signed
			for _, o := range w.nodes {
				if o != n && o.api.seq > 0 {
					n.views[o.uid] = o.api
				}
			}
			n.step(4)
			for _, c := range n.calls {
				n.exchange(c, true)
			}
			n.calls = nil
			events++
		}
		p.check()
	}
	for _, n := range w.nodes {
		p.arrived(n)
	}
	return events
}

func (p *play) all(is func(*node) bool) bool {
	return !slices.ContainsFunc(p.w.nodes, func(n *node) bool { return !is(n) })
}

func (p *play) arrived(n *node) {
	if n.state != Steady || len(n.disk.keys) != 1 {
		text := ""
		for _, uid := range n.waiting {
			text += "; " + p.describe(n, p.w.node(uid))
		}
		p.t.Fatalf("seed %d: %s is %s with %d keys after a calm, waiting for %v%s", p.seed, n.uid, n.state, len(n.disk.keys), n.waiting, text)
	}
	for _, o := range p.w.nodes {
		if o == n {
			continue
		}
		want := Pair{Own: n.disk.keys[0].Generation, Peer: o.disk.keys[len(o.disk.keys)-1].Generation}
		if n.active[o.uid] != want || !p.reaches(n, o) || len(n.links[o.uid]) != 1 {
			p.t.Fatalf("seed %d: %s after a calm: %s", p.seed, n.uid, p.describe(n, o))
		}
		if n.links[o.uid][want].initiates == o.links[n.uid][want.mirror()].initiates {
			p.t.Fatalf("seed %d: %s and %s both say %t about who starts handshakes", p.seed, n.uid, o.uid, n.links[o.uid][want].initiates)
		}
	}
}

func (p *play) describe(n, o *node) string {
	return describe(n, o) + " | " + describe(o, n)
}
