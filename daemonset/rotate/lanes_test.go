// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotate

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/keymgr/rotation"
)

// rotations is how many follow each other.
func rotations() int {
	if n, err := strconv.Atoi(os.Getenv("SEALANE_ROTATIONS")); err == nil && n > 0 {
		return n
	}
	if testing.Short() {
		return 2
	}
	return 5
}

// scene is something that happens while pods send.
type scene struct {
	name   string
	way    direction
	happen func(t *testing.T)
}

// TestPrivilegedRotationLosesNothing rotates the keys of three nodes, whose daemons
// are processes of their own, under traffic in every way that may go wrong.
func TestPrivilegedRotationLosesNothing(t *testing.T) {
	l := newLab(t, 3)
	l.settled(next()) // nothing is asked for: the first keys
	a, b, c := l.nodes[0], l.nodes[1], l.nodes[2]
	l.play(t, []scene{
		{"one after the other", bothWays, func(*testing.T) {
			for i := range rotations() {
				l.rotate(l.nodes[i%3])
			}
		}},
		{"all at once", bothWays, func(*testing.T) { l.rotate(l.nodes...) }},
		{"one way only", oneWay, func(*testing.T) { l.rotate(l.nodes...) }},
		{"news come late", bothWays, func(*testing.T) {
			l.late(c, 3*time.Second)
			l.rotate(a, b, c)
			l.late(nil, 0)
		}},
		{"daemon killed in each state", bothWays, func(t *testing.T) {
			a.dies(t, false)
			a.dies(t, true)
		}},
		{"no processor", bothWays, func(t *testing.T) { a.waitsForProcessor(t, b) }},
		{"pairing blocked", bothWays, func(t *testing.T) { b.rotatesUnheard(t, a, c) }},
	})
}

// play has one scene follow the other, and gives all that was sent.
func (l *lab) play(t *testing.T, scenes []scene) (total flow) {
	t.Helper()
	for _, s := range scenes {
		ok := t.Run(s.name, func(t *testing.T) {
			outer := l.t
			l.t = t // what fails, fails here
			defer func() { l.t = outer }()
			total.add(l.under(t, s.way, func() { s.happen(t) }))
			for _, n := range l.nodes {
				if r := n.shown(); r.Overdue || len(r.Fallback) > 0 {
					t.Errorf("%s: %+v", n.live.ID.Name, r)
				}
			}
		})
		if !ok {
			break // what follows would start from something broken
		}
	}
	return total
}

// late makes statements to and from a node take their time.
func (l *lab) late(who *labNode, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = func(reader, author *labNode) time.Duration {
		if reader == who || author == who {
			return d
		}
		return 50 * time.Millisecond
	}
}

// dies rotates the node's key while its daemon is killed once in each state, and is
// back a moment later with nothing but disk and kernel.
func (n *labNode) dies(t *testing.T, after bool) {
	t.Helper()
	marks := next(n)
	states := []rotation.State{rotation.Keyed, rotation.Published, rotation.Retiring}
	n.tell(func(s *news) { s.Die, s.After = states[0], after })
	n.lab.request(n)
	for i, state := range states {
		select {
		case <-n.ended:
		case <-time.After(patience):
			t.Fatalf("the daemon has never come to be %s\n%s", state, n.lab.describe())
		}
		n.tell(func(s *news) { s.Die = "" })
		if i+1 < len(states) {
			n.tell(func(s *news) { s.Die = states[i+1] })
		}
		n.start()
	}
	n.lab.settled(marks)
}

// waitsForProcessor lets a process of the node stand still, as on a busy machine: the
// one that carries WireGuard or, where the kernel does, the daemon.
func (n *labNode) waitsForProcessor(t *testing.T, other *labNode) {
	t.Helper()
	if n.carries == nil {
		n.daemonWaits(t, other)
	} else {
		n.lanesWait(t)
	}
}

// lanesWait stops the process of WireGuard: what pods send meanwhile waits for it.
func (n *labNode) lanesWait(t *testing.T) {
	t.Helper()
	queues := n.lab.watchQueues()
	during(t, n.carries, func() {
		time.Sleep(700 * time.Millisecond) // this is what is tested: 1,400 packets
	})
	// Devices drop a few for other reasons, as what announces a router.
	if full := queues.total(); full.devices > 100 {
		t.Errorf("what was sent meanwhile did not wait: %v", full)
	}
}

// daemonWaits stops the node's daemon while another node rotates its key: the old
// lanes go on, and the rotation waits for the daemon.
func (n *labNode) daemonWaits(t *testing.T, other *labNode) {
	t.Helper()
	marks := next(other)
	during(t, n.daemon.Process, func() {
		n.lab.request(other)
		n.lab.await("a new key", func() bool { return other.shown().State == rotation.Published })
		time.Sleep(3 * time.Second) // this is what is tested: a rotation takes no longer
		if r := other.shown(); r.State != rotation.Published || len(r.Keys) != 2 || r.Overdue {
			t.Errorf("while a daemon stands still: %+v, want its peer to wait", r)
		}
	})
	n.lab.settled(marks)
}

// during stops a process while something happens.
func during(t *testing.T, p *os.Process, happen func()) {
	t.Helper()
	if err := p.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Signal(unix.SIGCONT); err != nil {
			t.Error(err)
		}
	}()
	happen()
}

// rotatesUnheard rotates the node's key while nobody can agree on preshared keys
// with it: the old lanes go on, until it is possible again.
func (n *labNode) rotatesUnheard(t *testing.T, others ...*labNode) {
	t.Helper()
	uid := n.live.ID.UID
	before, failed := map[*labNode]rotation.Pair{}, map[*labNode]uint64{}
	for _, o := range others {
		before[o], failed[o] = o.shown().Active[uid], o.pairings(roleClient, "unreachable", "handshake")
	}
	n.ns.Run("nft", "add", "table", "inet", "blocked")
	for _, hook := range []string{"input", "output"} {
		n.ns.Run("nft", "add", "chain", "inet", "blocked", hook, fmt.Sprintf("{ type filter hook %s priority 0; }", hook))
		n.ns.Run("nft", "add", "rule", "inet", "blocked", hook, "tcp", "dport", fmt.Sprint(testPort), "drop")
	}
	marks := next(n)
	n.lab.request(n)
	for _, o := range others {
		n.lab.await("an exchange that fails", func() bool {
			return o.pairings(roleClient, "unreachable", "handshake") > failed[o]
		})
	}
	r := n.shown()
	if r.State != rotation.Published || len(r.Keys) != 2 || len(r.Waiting) != len(others) || r.Overdue {
		t.Errorf("without an exchange: %+v, want it to wait for all peers", r)
	}
	for _, o := range others {
		if got := o.shown().Active[uid]; got != before[o] {
			t.Errorf("%s left %v for %v, and there was no exchange", o.live.ID.Name, before[o], got)
		}
	}
	n.ns.Run("nft", "delete", "table", "inet", "blocked")
	n.lab.settled(marks)
}
