// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotation

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The model check plays everything at once; the tests here pin down one rule each.

var epoch = time.Unix(1_700_000_000, 0)

// scene is a machine, what it is told, and a clock. The peer is called p.
type scene struct {
	Input
	m *Machine
}

// newScene has a node with key 10 and peers with key 20, made later, if they are
// given; lot draws the share of what may be drawn.
func newScene(lot float64, peers ...Peer) *scene {
	s := &scene{m: New(Config{Self: "n", Times: TimesFor(0), Spread: func(most time.Duration) time.Duration {
		return time.Duration(lot * float64(most))
	}})}
	s.Now, s.Ready, s.Peers = epoch, 10, peers
	s.own(10)
	return s
}

// own sets this node's keys, each made a minute after the one before, all of them
// announced.
func (s *scene) own(generations ...uint64) {
	s.Own = Own{Signed: generations, Announced: generations}
	for i, g := range generations {
		s.Own.Keys = append(s.Own.Keys, Key{Generation: g, Since: epoch.Add(time.Duration(i-len(generations)) * time.Minute)})
	}
}

func (s *scene) at(d time.Duration) Decision {
	s.Now = epoch.Add(d)
	return s.m.Step(s.Input)
}

// pass steps each second up to a time, and lets something happen before each step.
func (s *scene) pass(until time.Duration, happen func(second int)) (d Decision) {
	for i := int(s.Now.Sub(epoch) / time.Second); time.Duration(i)*time.Second <= until; i++ {
		if happen != nil {
			happen(i)
		}
		d = s.at(time.Duration(i) * time.Second)
	}
	return d
}

// peer has one key, made after this node's, and no preshared keys.
func peer(generations ...uint64) Peer {
	p := Peer{UID: "p", Paired: map[Pair]Pairing{}}
	for i, g := range generations {
		p.Keys = append(p.Keys, Key{Generation: g, Since: epoch.Add(time.Duration(i) * time.Second)})
	}
	return p
}

func (p Peer) with(s Secrecy, paths ...Path) Peer {
	p.Secrecy, p.Paths = s, paths
	return p
}

// live is a path with a session of now.
func live(own, peer uint64) Path {
	return Path{Pair: Pair{own, peer}, Handshake: epoch, Received: 1, Sent: 1}
}

// data is a message that is no keepalive, in bytes.
const data = 100

// session says that a path had a handshake just now, so that the peer is alive.
func (s *scene) session(i int) { s.Peers[0].Paths[i].Handshake = s.Now }

func TestReasonForANewKey(t *testing.T) {
	made := epoch.Add(-time.Minute)
	for name, tc := range map[string]struct {
		change func(*scene)
		want   Reason
	}{
		"none":                       {func(*scene) {}, ""},
		"no key":                     {func(s *scene) { s.Own = Own{} }, First},
		"asked for":                  {func(s *scene) { s.Requested = made.Add(1) }, OnDemand},
		"asked for before":           {func(s *scene) { s.Requested = made }, ""},
		"asked for, two keys":        {func(s *scene) { s.own(10, 11); s.Requested = epoch.Add(1) }, ""},
		"asked for, not announced":   {func(s *scene) { s.Own.Announced = nil; s.Requested = epoch }, ""},
		"compromised":                {func(s *scene) { s.Compromised = made }, Compromise},
		"compromised, not announced": {func(s *scene) { s.Own.Announced = nil; s.Compromised = epoch }, ""},
		"compromised before":         {func(s *scene) { s.Compromised = made.Add(-1) }, ""},
		"compromised, answered": {func(s *scene) {
			s.Compromised, s.Own.Keys[0].Compromised = epoch.AddDate(99, 0, 0), epoch.AddDate(99, 0, 0)
		}, ""},
		"compromised again": {func(s *scene) {
			s.Compromised, s.Own.Keys[0].Compromised = epoch.AddDate(99, 0, 0), epoch.AddDate(98, 0, 0)
		}, Compromise},
		"asked for and answered": {func(s *scene) {
			s.Requested, s.Own.Keys[0].Requested = epoch.AddDate(99, 0, 0), epoch.AddDate(99, 0, 0)
		}, ""},
		"compromised and asked for":   {func(s *scene) { s.Compromised, s.Requested = epoch, epoch }, Compromise},
		"machine started long ago":    {func(s *scene) { s.Own.Keys[0].Since, s.Boot = epoch.AddDate(0, 0, -2), epoch.AddDate(0, 0, -1) }, Boot},
		"machine started just now":    {func(s *scene) { s.Boot = made.Add(1) }, ""},
		"no lot after a boot":         {func(s *scene) { s.m.cfg.Times.AfterBoot, s.Boot = 0, made.Add(1) }, Boot},
		"clock set back at a boot":    {func(s *scene) { s.Own.Keys[0].Since, s.Boot = epoch.Add(time.Hour), epoch }, ClockBack},
		"machine started before":      {func(s *scene) { s.Boot = made }, ""},
		"key of the future":           {func(s *scene) { s.Own.Keys[0].Since = epoch.Add(time.Minute + 1) }, ClockBack},
		"key of a clock that is off":  {func(s *scene) { s.Own.Keys[0].Since = epoch.Add(time.Minute) }, ""},
		"old key without a schedule":  {func(s *scene) { s.Own.Keys[0].Since = epoch.AddDate(-100, 0, 0) }, ""},
		"old key, a schedule":         {func(s *scene) { s.m.cfg.Times.Period = time.Hour; s.Own.Keys[0].Since = epoch.Add(-54 * time.Minute) }, Scheduled},
		"key not yet due, a schedule": {func(s *scene) { s.m.cfg.Times.Period = time.Hour; s.Own.Keys[0].Since = epoch.Add(-42 * time.Minute) }, ""},
	} {
		s := newScene(0)
		change := tc.change
		change(s)
		if got := s.at(0).Create; got != tc.want {
			t.Errorf("%s: reason %q, want %q", name, got, tc.want)
		}
	}
}

func TestDueBySchedule(t *testing.T) {
	const period = 10 * time.Hour
	least, most := period, time.Duration(0)
	for node := range 20 {
		for g := range uint64(50) {
			cfg := Config{Self: fmt.Sprint("node-", node), Times: TimesFor(period)}
			k := Key{Generation: g, Since: epoch}
			at := New(cfg).dueAt(k)
			if again := New(cfg).dueAt(k); !at.Equal(again) {
				t.Fatalf("due at %s, and %s after a restart", at, again)
			}
			least, most = min(least, at.Sub(epoch)), max(most, at.Sub(epoch))
			s := scene{m: New(cfg)}
			s.Own = Own{Keys: []Key{k}, Announced: []uint64{g}}
			if s.at(at.Sub(epoch)-1).Create != "" || s.at(at.Sub(epoch)).Create != Scheduled {
				t.Fatalf("%s, generation %d: not made when it is due", cfg.Self, g)
			}
		}
	}
	if least < 7*time.Hour || least > 7*time.Hour+5*time.Minute || most > 9*time.Hour || most < 9*time.Hour-5*time.Minute {
		t.Errorf("due after %s to %s, want all from 7 to 9 h", least, most)
	}
}

// TestDueAfterBoot: when the power comes back, nodes replace their keys one after
// the other, evenly over the window, and each at its own moment in spite of restarts.
func TestDueAfterBoot(t *testing.T) {
	for period, window := range map[time.Duration]time.Duration{0: DefaultPeriod / 5, DefaultPeriod: DefaultPeriod / 5, time.Minute: 12 * time.Second} {
		const nodes, parts = 5000, 10
		var counts [parts]int
		boot := epoch
		for node := range nodes {
			cfg := Config{Self: fmt.Sprintf("9f1c-%x", node*7919), Times: TimesFor(period)}
			k := Key{Generation: 17, Since: boot.Add(-time.Second)}
			after := New(cfg).dueAfterBoot(boot, k).Sub(boot)
			if again := New(cfg).dueAfterBoot(boot, k).Sub(boot); after != again || after < 0 || after >= window {
				t.Fatalf("period %s, node %s: after %s, and %s after a restart, of %s", period, cfg.Self, after, again, window)
			}
			counts[after*parts/window]++
			s := scene{m: New(cfg)}
			s.Boot, s.Own = boot, Own{Keys: []Key{k}, Announced: []uint64{17}}
			early := s.at(after - 1)
			if early.Create != "" || early.Next > max(1, pollLeast) || s.at(after).Create != Boot {
				t.Fatalf("period %s, node %s: %+v before its moment, then %q", period, cfg.Self, early, s.at(after).Create)
			}
		}
		for i, n := range counts {
			if n < nodes/parts*8/10 || n > nodes/parts*12/10 {
				t.Errorf("period %s: %d of %d nodes in tenth %d of the window", period, n, nodes, i)
			}
		}
	}
}

func TestStateOfAnOwnKey(t *testing.T) {
	both := []uint64{10, 11}
	for name, tc := range map[string]struct {
		change          func(*scene)
		state           State
		publish, revoke []uint64
	}{
		"devices missing":                   {func(s *scene) { s.Own.Signed = both[:1] }, Keyed, both[:1], nil},
		"devices missing, nothing signed":   {func(s *scene) { s.Own.Signed = nil }, Keyed, nil, nil},
		"devices up":                        {func(s *scene) { s.Own.Signed, s.Ready = both[:1], 11 }, Keyed, both, nil},
		"signed, not announced":             {func(s *scene) { s.Own.Announced, s.Ready = nil, 11 }, Published, both, nil},
		"announced":                         {func(s *scene) { s.Ready = 11 }, Published, both, nil},
		"signed, devices gone":              {func(*scene) {}, Keyed, both, nil},
		"withdrawn":                         {func(s *scene) { s.Own.Signed, s.Ready = both[1:], 11 }, Retiring, both[1:], nil},
		"withdrawn, devices gone":           {func(s *scene) { s.Own.Signed = both[1:] }, Retiring, both[1:], nil},
		"compromised, devices missing":      {func(s *scene) { s.Own.Signed, s.Compromised = both[:1], s.Own.Keys[0].Since }, Keyed, both[:1], nil},
		"compromised, devices up":           {func(s *scene) { s.Ready, s.Compromised = 11, s.Own.Keys[0].Since }, Retiring, both[1:], both[:1]},
		"compromised before, devices up":    {func(s *scene) { s.Ready, s.Compromised = 11, s.Own.Keys[0].Since.Add(-1) }, Published, both, nil},
		"compromised when withdrawn before": {func(s *scene) { s.Own.Signed, s.Compromised = both[1:], epoch }, Retiring, both[1:], both[:1]},
	} {
		s := newScene(0)
		s.own(both...)
		change := tc.change
		change(s)
		d := s.at(0)
		if d.State != tc.state || !slices.Equal(d.Publish, tc.publish) || !slices.Equal(d.Revoke, tc.revoke) {
			t.Errorf("%s: %s, publish %v, revoke %v; want %s, %v, %v", name, d.State, d.Publish, d.Revoke, tc.state, tc.publish, tc.revoke)
		}
	}
}

// proving is a node with two announced keys, and a peer that has both as paths: 0 is
// the old one, 1 the new one.
func proving() *scene {
	s := newScene(0, peer(20).with(Classic, live(10, 20), live(11, 20)))
	s.own(10, 11)
	s.Ready = 11
	return s
}

func TestOldKeyIsWithdrawn(t *testing.T) {
	const second = time.Second
	arrives := func(s *scene, path int) { s.Peers[0].Paths[path].Received++ }
	for name, tc := range map[string]struct {
		happen  func(s *scene, second int)
		last    time.Duration // in Published
		overdue bool
	}{
		"quiet since the start": {func(s *scene, i int) {
			if s.session(0); i > 0 {
				arrives(s, 1)
			}
		}, 29 * second, false},
		"quiet since something came": {func(s *scene, i int) {
			if s.session(0); i > 0 {
				arrives(s, 1)
			}
			if i == 7 {
				arrives(s, 0)
			}
		}, 36 * second, false},
		"silent, as the new key": {func(s *scene, _ int) { s.session(0) }, 12*30*second - second, false},
		"the new key was heard of before the old one": {func(s *scene, i int) {
			if s.session(0); i == 3 {
				arrives(s, 1)
			}
			if i == 4 {
				arrives(s, 0)
			}
		}, 12*30*second + 3*second, false},
		"not proven": {func(s *scene, _ int) {
			s.session(0)
			s.Peers[0].Paths[1].Handshake = time.Time{}
			arrives(s, 1)
		}, 59 * time.Minute, true},
		"this node fell back": {func(s *scene, i int) {
			s.session(0)
			if s.session(1); i == 5 {
				arrives(s, 1)
			}
			s.Peers[0].Paths[1].Sent += data
		}, 80 * second, false}, // silent since 6, falls back at 21, rests until 81
		"the lanes were made anew": {func(s *scene, i int) {
			if s.session(0); i >= 5 {
				s.Peers[0].Paths = []Path{{Pair: Pair{10, 20}}, {Pair: Pair{11, 20}}}
			}
		}, 183 * second, false}, // it was alive at 4
		"the peer is dead": {func(*scene, int) {}, 179 * second, false},
		"no peer":          {func(s *scene, _ int) { s.Peers = nil }, 29 * second, false},
		"not announced":    {func(s *scene, _ int) { s.Own.Announced = nil }, 3699 * second, false},
		"handshakes that come to nothing": {func(s *scene, _ int) {
			s.Peers[0].Paths[0].Handshake, s.Peers[0].Paths[1].Handshake = time.Time{}, time.Time{}
			arrives(s, 1)
		}, 59 * time.Minute, true},
	} {
		s := proving()
		s.Own.Keys[1].Since = epoch.Add(-time.Minute)
		s.Own.Keys[0].Since = epoch.Add(-2 * time.Minute)
		s.m.cfg.Times.Limit = time.Hour
		happen, last, overdue := tc.happen, time.Duration(-1), false
		for i := range 3700 {
			s.Now = epoch.Add(time.Duration(i) * second)
			happen(s, i)
			d := s.m.Step(s.Input)
			overdue = overdue || d.Overdue
			if d.State == Retiring {
				break
			}
			last = time.Duration(i) * second
		}
		if last != tc.last || overdue != tc.overdue {
			t.Errorf("%s: in Published until %s, overdue %t; want %s, %t", name, last, overdue, tc.last, tc.overdue)
		}
	}
}

func TestWhoHoldsTheRotationUp(t *testing.T) {
	s := proving()
	s.Peers[0].Paths[1].Handshake = time.Time{}
	if d := s.pass(time.Minute, func(int) { s.session(0) }); !cmp.Equal(d.Waiting, []string{"p"}) || d.State != Published || d.Overdue {
		t.Errorf("waits for %v in %s, overdue %t; want for p", d.Waiting, d.State, d.Overdue)
	}
}

func TestOldKeyIsRemoved(t *testing.T) {
	arrives := func(s *scene, path int) { s.Peers[0].Paths[path].Received++ }
	// WireGuard dies on this node, and only the old key is agreed on at both ends. When
	// the new one is too, this node leaves the old one at once, the peer 15 s later.
	comesBack := func(s *scene, i int) {
		switch {
		case i == 20:
			s.Peers[0].Paths = []Path{{Pair: Pair{10, 20}, Handshake: s.Now}, {Pair: Pair{11, 20}}}
		case i == 55:
			s.session(1)
		}
		if i < 20 || i >= 70 {
			arrives(s, 1)
		} else {
			arrives(s, 0)
		}
	}
	retiring := func(paths ...Path) *scene {
		s := newScene(0, peer(20).with(Classic, paths...))
		s.own(10, 11)
		s.Own.Signed, s.Ready = []uint64{11}, 11
		s.Own.Announced = s.Own.Signed
		return s
	}
	for name, tc := range map[string]struct {
		scene  *scene
		happen func(s *scene, i int)
		want   time.Duration // -1: not within two hours
	}{
		"after propagation": {retiring(live(11, 20)), nil, time.Minute},
		"announced late":    {retiring(live(11, 20)), func(s *scene, i int) { s.Own.Announced = s.Own.Signed[:min(i/10, 1)] }, 70 * time.Second},
		"never announced":   {retiring(), func(s *scene, _ int) { s.Own.Announced = nil }, -1},
		"a peer uses it":    {retiring(live(10, 20)), func(s *scene, _ int) { s.session(0) }, time.Hour},
		"a peer used it": {retiring(live(10, 20), Path{Pair: Pair{11, 20}}), func(s *scene, i int) {
			s.session(min(i/90, 1))
			arrives(s, min(i/90, 1))
		}, 119 * time.Second},
		"a peer came back by it": {retiring(live(10, 20), live(11, 20)), comesBack, 99 * time.Second},
		"a peer came back by it and is gone": {retiring(live(10, 20), live(11, 20)), func(s *scene, i int) {
			if i < 70 {
				comesBack(s, i)
			}
		}, 249 * time.Second}, // 180 s after its last packet
		"compromised":               {retiring(live(10, 20)), func(s *scene, _ int) { s.Compromised = epoch }, 0},
		"compromised, not yet news": {retiring(live(10, 20)), func(s *scene, i int) { s.Compromised, s.Own.Announced = epoch, s.Own.Signed[:min(i/5, 1)] }, 5 * time.Second},
	} {
		s, happen, removed := tc.scene, tc.happen, time.Duration(-1)
		s.own(10, 11)
		s.Own.Signed = []uint64{11}
		s.Own.Announced = s.Own.Signed
		for i := 0; i < 7200 && removed < 0; i++ {
			if s.Now = epoch.Add(time.Duration(i) * time.Second); happen != nil {
				happen(s, i)
			}
			if d := s.m.Step(s.Input); d.Remove != 0 {
				if removed = s.Now.Sub(epoch); d.Remove != 10 {
					t.Errorf("%s: removes %d, want 10", name, d.Remove)
				}
			}
		}
		if removed != tc.want {
			t.Errorf("%s: removed after %s, want %s", name, removed, tc.want)
		}
	}
}

// cluster has n peers with which all is well.
func cluster(n int) []Peer {
	var peers []Peer
	for i := range n {
		p := peer(20).with(Required, live(10, 20))
		p.UID = fmt.Sprint("peer-", i)
		p.Paths[0].Preshared = true
		p.Paired[Pair{10, 20}] = Pairing{At: epoch}
		peers = append(peers, p)
	}
	return peers
}

// TestStepGrowsWithPeers: twice the peers, twice the work.
func TestStepGrowsWithPeers(t *testing.T) {
	cost := func(n int) float64 {
		s := newScene(0, cluster(n)...)
		return testing.AllocsPerRun(5, func() { s.at(time.Second) })
	}
	if one, two := cost(1000), cost(2000); two > 2.2*one {
		t.Errorf("%.0f allocations for 1000 peers, %.0f for 2000", one, two)
	}
}

// TestRequestOfTheFuture: an operator's clock that is ahead, or a time that never
// comes, makes one new key and not one after the other.
func TestRequestOfTheFuture(t *testing.T) {
	for name, request := range map[string]Input{
		"compromised": {Requested: epoch.AddDate(99, 0, 0), Compromised: epoch.AddDate(99, 0, 0)},
		"requested":   {Requested: epoch.Add(10 * time.Minute)},
	} {
		s := newScene(0)
		s.Requested, s.Compromised = request.Requested, request.Compromised
		created, revoked := 0, map[uint64]bool{}
		s.pass(15*time.Minute, func(int) {
			d := s.m.Step(s.Input)
			for _, g := range d.Revoke {
				revoked[g] = true
			}
			switch last := s.Own.Keys[len(s.Own.Keys)-1]; {
			case d.Create != "":
				created++
				next := Key{Generation: last.Generation + 1, Since: s.Now, Requested: s.Requested, Compromised: s.Compromised}
				s.Own.Keys, s.Ready = append(s.Own.Keys, next), next.Generation
			case d.Remove != 0:
				s.Own.Keys = s.Own.Keys[1:]
			default:
				s.Own.Signed, s.Own.Announced = d.Publish, d.Publish
			}
		})
		if want := name == "compromised"; created != 1 || revoked[10] != want || len(revoked) > 1 || len(s.Own.Keys) != 1 {
			t.Errorf("%s: %d keys made, revoked %v, on disk %v", name, created, revoked, s.Own.Keys)
		}
	}
}
