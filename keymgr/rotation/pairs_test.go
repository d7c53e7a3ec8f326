// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotation

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// asks steps by milliseconds and returns when the first exchange is asked for; -1:
// not within the time.
func (s *scene) asks(from, until, step time.Duration) time.Duration {
	for at := from; at <= until; at += step {
		if e := s.at(at).Peers["p"].Exchange; e != nil {
			return at
		}
	}
	return -1
}

// strangers fill a cluster up: peers that nothing is known of.
func strangers(n int) (out []Peer) {
	for i := range n {
		out = append(out, Peer{UID: string(rune(i + 1000))})
	}
	return out
}

func TestWhenToExchange(t *testing.T) {
	const second = time.Second
	paired := func(p Peer, at time.Time) Peer { p.Paired[Pair{10, 20}] = Pairing{At: at}; return p }
	shared := func(p Path) Path { p.Preshared = true; return p }
	older := func(s *scene) { s.Peers[0].Keys[0].Since = epoch.Add(-time.Hour) } // the peer's key; it goes first
	for name, tc := range map[string]struct {
		peer   Peer
		lot    float64
		change func(*scene)
		want   time.Duration
	}{
		"at once":                    {peer(20).with(Required), 0, nil, 0},
		"preferred, too":             {peer(20).with(Preferred), 0, nil, 0},
		"never without keys":         {peer(20).with(Classic), 0, nil, -1},
		"never before announced":     {peer(20).with(Required), 0, func(s *scene) { s.Own.Announced = nil }, -1},
		"never with a withdrawn key": {Peer{UID: "p", Keys: []Key{{Generation: 20, Since: epoch, Withdrawn: true}}}.with(Required, shared(live(10, 20))), 0, nil, -1},
		"spread by lot":              {peer(20).with(Required), 1, func(s *scene) { s.Peers = append(s.Peers, strangers(999)...) }, 5 * second},
		"the other end goes first":   {peer(20).with(Required), 0, older, second + 10*time.Millisecond},
		"the other end, of a crowd": {peer(20).with(Required), 1, func(s *scene) {
			older(s)
			s.Peers = append(s.Peers, strangers(999)...)
		}, 11 * second},
		"equal age, by name": {peer(20).with(Required), 0, func(s *scene) { s.Peers[0].Keys[0].Since = s.Own.Keys[0].Since }, 0},
		"equal age, by name of the other": {peer(20).with(Required), 0, func(s *scene) {
			s.Peers[0].Keys[0].Since, s.m.cfg.Self = s.Own.Keys[0].Since, "z"
		}, second + 10*time.Millisecond},
		"renewal":                       {paired(peer(20), epoch).with(Required), 0, nil, time.Hour},
		"renewal by lot":                {paired(peer(20), epoch).with(Required), 1, nil, 54 * time.Minute},
		"renewal by the other end":      {paired(peer(20), epoch).with(Required), 1, older, 90 * time.Minute},
		"no handshake":                  {paired(peer(20), epoch).with(Required, shared(Path{Pair: Pair{10, 20}})), 0, nil, 12 * second},
		"no handshake, the other first": {paired(peer(20), epoch).with(Required, shared(Path{Pair: Pair{10, 20}})), 0, older, 24 * second},
		"session not renewed":           {paired(peer(20), epoch).with(Required, shared(live(10, 20))), 0, nil, 150*second + 10*time.Millisecond},
		"daemon is new":                 {peer(20).with(Required, shared(live(10, 20))), 0, func(s *scene) { s.Peers[0].Paths[0].Handshake = epoch.Add(time.Minute) }, 10 * second},
		"daemon is new, in a crowd": {peer(20).with(Required, shared(live(10, 20))), 0, func(s *scene) {
			s.Peers[0].Paths[0].Handshake = epoch.Add(time.Minute)
			s.Peers = append(s.Peers, strangers(999)...)
		}, 20 * second},
		"daemon is new, the other first": {peer(20).with(Required, shared(live(10, 20))), 0, func(s *scene) {
			older(s)
			s.Peers[0].Paths[0].Handshake = epoch.Add(time.Minute)
		}, 15 * second},
		"lane has no preshared key": {peer(20).with(Preferred, live(10, 20)), 0, nil, 0},
	} {
		s := newScene(tc.lot, tc.peer)
		if tc.change != nil {
			change := tc.change
			change(s)
		}
		step := 10 * time.Millisecond
		if tc.want < 0 || tc.want > 10*time.Minute || len(s.Peers) > 1 {
			step = second
		}
		if got := s.asks(0, 2*time.Hour, step); got != tc.want {
			t.Errorf("%s: asked for after %s, want %s", name, got, tc.want)
		}
	}
}

func TestExchangeIsAskedForOnce(t *testing.T) {
	s := newScene(0, peer(20).with(Required))
	if s.asks(0, 0, 1) != 0 || s.asks(1, time.Hour, time.Second) != -1 {
		t.Error("not asked for once")
	}
}

// TestRetriesAreSpaced: twice as long after each failure, up to a limit, and less a
// half by lot.
func TestRetriesAreSpaced(t *testing.T) {
	for _, lot := range []float64{0, 1} {
		s := newScene(lot, peer(20).with(Required))
		now := s.asks(0, time.Second, time.Millisecond)
		for _, want := range []int{100, 200, 400, 800, 1600, 3200, 5000, 5000} {
			s.m.Exchanged("p", false, s.Now)
			again := s.asks(now, now+20*time.Second, time.Millisecond)
			if got := again - now; got != time.Duration(want)*time.Millisecond*time.Duration(1+lot) {
				t.Errorf("lot %g: tried again after %s, want %d ms", lot, got, want)
			}
			now = again
		}
		s.m.Exchanged("p", false, s.Now)
		s.Peers[0] = peer(20, 21).with(Required)
		if got := s.asks(now+1, now+time.Minute, time.Millisecond); got-now > 20*time.Millisecond {
			t.Errorf("lot %g: another key waits %s for the failures of the one before", lot, got-now)
		}
		s.m.Exchanged("p", true, s.Now)
		s.Peers[0] = peer(20, 21).with(Required)
		now = s.asks(s.Now.Sub(epoch), time.Hour, time.Millisecond)
		s.m.Exchanged("p", false, s.Now)
		if got := s.asks(now, now+time.Minute, time.Millisecond) - now; got > 200*time.Millisecond {
			t.Errorf("lot %g: a success does not end the spacing: %s", lot, got)
		}
	}
	newScene(0).m.Exchanged("gone", true, epoch) // of a peer that left meanwhile
}

// TestLotOfRenewals is drawn anew for each key, so that a cluster does not renew in step.
func TestLotOfRenewals(t *testing.T) {
	s := newScene(1, peer(20).with(Required))
	s.Peers[0].Paired[Pair{10, 20}] = Pairing{At: epoch}
	first := s.asks(0, 2*time.Hour, time.Second)
	s.m.cfg.Spread = func(time.Duration) time.Duration { return 0 }
	s.m.Exchanged("p", true, s.Now)
	s.Peers[0].Paired[Pair{10, 20}] = Pairing{At: s.Now}
	if second := s.asks(first, 3*time.Hour, time.Second) - first; first != 54*time.Minute || second != time.Hour {
		t.Errorf("renewed after %s, then after %s; want 54 min and 1 h", first, second)
	}
}

func (s *scene) initiates(at time.Duration, pair Pair) bool {
	for _, c := range s.at(at).Peers["p"].Install {
		if c.Pair == pair {
			return c.Initiate
		}
	}
	return false
}

func TestWhoStartsHandshakes(t *testing.T) {
	pair := Pair{10, 20}
	dead := Path{Pair: pair, Preshared: true}
	session := dead
	session.Handshake = epoch
	paired := func(client bool) func(*scene) {
		return func(s *scene) { s.Peers[0].Paired[pair] = Pairing{At: epoch, Client: client} }
	}
	older := func(s *scene) { s.Peers[0].Keys[0].Since = epoch.Add(-time.Hour) }
	for name, tc := range map[string]struct {
		peer   Peer
		change func(*scene)
		at     time.Duration
		want   bool
	}{
		"client of the exchange":        {peer(20).with(Required), paired(true), 0, true},
		"server of the exchange":        {peer(20).with(Required), paired(false), 0, false},
		"client, though younger":        {peer(20).with(Required), func(s *scene) { older(s); paired(true)(s) }, 0, true},
		"older key, no preshared keys":  {peer(20).with(Classic), nil, 0, true},
		"newer key, no preshared keys":  {peer(20).with(Classic), older, 0, false},
		"was so before the daemon":      {peer(20).with(Required, Path{Pair: pair, Preshared: true, Initiates: true}), nil, 0, true},
		"was not so before the daemon":  {peer(20).with(Required, dead), nil, 0, false},
		"steps in":                      {peer(20).with(Required, dead), paired(false), 12 * time.Second, true},
		"does not step in yet":          {peer(20).with(Required, dead), paired(false), 12*time.Second - 1, false},
		"no need to step in":            {peer(20).with(Required, session), paired(false), 12 * time.Second, false},
		"peer waits for it to be left":  {peer(20, 21).with(Required, session), paired(false), 0, true},
		"withdrawn key waits no longer": {Peer{UID: "p", Keys: []Key{{Generation: 20, Since: epoch}, {Generation: 19, Since: epoch, Withdrawn: true}}}.with(Required, session), nil, 0, false},
	} {
		s := newScene(0, tc.peer)
		if tc.change != nil {
			change := tc.change
			change(s)
		}
		s.at(0)
		if got := s.initiates(tc.at, pair); got != tc.want {
			t.Errorf("%s: starts handshakes %t, want %t", name, got, tc.want)
		}
	}
}

// TestLostSession: the device is gone with a session that the peer still has. It will
// not call, so that this node does until there is a new one.
func TestLostSession(t *testing.T) {
	pair := Pair{10, 20}
	path := Path{Pair: pair, Preshared: true, Received: 5, Sent: 5}
	session := path
	session.Handshake = epoch
	s := newScene(0, peer(20).with(Required, session))
	s.Peers[0].Paired[pair] = Pairing{At: epoch}
	if s.initiates(0, pair) {
		t.Error("calls with a session")
	}
	s.Peers[0].Paths = nil
	s.at(1)
	s.Peers[0].Paths = []Path{{Pair: pair, Preshared: true}}
	if !s.initiates(2, pair) {
		t.Error("does not call after the device was gone")
	}
	s.Peers[0].Paths = []Path{session}
	if s.initiates(3, pair) {
		t.Error("still calls with a new session")
	}
	s.Peers[0].Paths = []Path{{Pair: pair, Preshared: true, Received: 1}} // made anew between two looks
	if !s.initiates(4, pair) {
		t.Error("does not call after the device was made anew")
	}
}

// TestOnlyTargetAndActiveAreCalled: other combinations keep what they have.
func TestOnlyTargetAndActiveAreCalled(t *testing.T) {
	s := newScene(0, peer(20, 21).with(Classic, live(10, 20)))
	s.own(10, 11)
	d := s.at(0).Peers["p"]
	got := map[Pair]bool{}
	for _, c := range d.Install {
		got[c.Pair] = c.Initiate
	}
	want := map[Pair]bool{{10, 20}: true, {11, 21}: true, {10, 21}: false, {11, 20}: false}
	if diff := cmp.Diff(want, got); diff != "" || d.Active != (Pair{10, 20}) {
		t.Errorf("active %v, calls (-want +got):\n%s", d.Active, diff)
	}
}

func TestFallback(t *testing.T) {
	oldest, newest := Pair{10, 20}, Pair{10, 21}
	fresh := func() *scene { return newScene(0, peer(20, 21).with(Classic, live(10, 20), live(10, 21))) }
	fallen := func(s *scene, i int) {
		s.session(0)
		if i > 0 {
			s.Peers[0].Paths[1].Sent += data
		}
	}
	s := fresh()
	history := []Pair{}
	since := []int{}
	s.pass(100*time.Second, func(i int) {
		s.Now = epoch.Add(time.Duration(i) * time.Second)
		fallen(s, i)
		d := s.m.Step(s.Input).Peers["p"]
		if d.Fallback != (d.Active == oldest) || !d.Live {
			t.Errorf("second %d: active %v, fallback %t, live %t", i, d.Active, d.Fallback, d.Live)
		}
		if len(history) == 0 || history[len(history)-1] != d.Active {
			history, since = append(history, d.Active), append(since, i)
		}
	})
	if !slices.Equal(history, []Pair{newest, oldest, newest, oldest}) || !slices.Equal(since, []int{0, 16, 76, 77}) {
		t.Errorf("used %v from second %v on; want back after 15 s of silence, and a look each minute", history, since)
	}
	s = fresh()
	d := s.pass(80*time.Second, func(i int) {
		if fallen(s, i); i >= 50 {
			s.Peers[0].Paths[1].Received++
		}
	}).Peers["p"]
	if d.Active != newest || d.Fallback {
		t.Errorf("answers again, and is not used: %+v", d)
	}
	for name, happen := range map[string]func(s *scene, i int){
		"the older one is dead": func(s *scene, _ int) {
			s.Peers[0].Paths[0].Handshake = epoch.Add(-sessionEnd)
			s.Peers[0].Paths[1].Sent += data
		},
		"the older one is silent, too": func(s *scene, i int) {
			fallen(s, i)
			s.Peers[0].Paths[0].Sent += data
		},
		"nothing but keepalives": func(s *scene, i int) {
			if s.session(0); i%int(keepalive/time.Second) == 1 {
				s.Peers[0].Paths[1].Sent += keepaliveSize
			}
		},
		"it is answered":          func(s *scene, i int) { fallen(s, i); s.Peers[0].Paths[1].Received += uint64(i / 14 % 2) },
		"there is nothing to say": func(s *scene, _ int) { s.session(0) },
	} {
		s := fresh()
		if d := s.pass(60*time.Second, func(i int) { happen(s, i) }).Peers["p"]; d.Fallback || d.Active != newest {
			t.Errorf("%s: fell back to %v", name, d.Active)
		}
	}
}

func (s *scene) installed(at time.Duration) (pairs []Pair) {
	for _, c := range s.at(at).Peers["p"].Install {
		pairs = append(pairs, c.Pair)
	}
	return pairs
}

func TestPreferredIsPatient(t *testing.T) {
	pair := Pair{10, 20}
	s := newScene(0, peer(20).with(Preferred))
	if got := s.installed(0); got != nil {
		t.Errorf("at once: %v", got)
	}
	if got := s.installed(10*time.Second - 1); got != nil {
		t.Errorf("before 10 s: %v", got)
	}
	if got := s.at(10 * time.Second).Peers["p"].Install; len(got) != 1 || got[0].Preshared {
		t.Errorf("after 10 s: %+v, want a lane without a preshared key", got)
	}
	s.Peers[0].Paths = []Path{{Pair: pair}}
	s.Peers[0].Paired[pair] = Pairing{At: s.Now}
	if got := s.at(11 * time.Second).Peers["p"].Install; len(got) != 1 || !got[0].Preshared {
		t.Errorf("with a preshared key: %+v", got)
	}
	required := newScene(0, peer(20).with(Required))
	if got := required.pass(time.Hour, nil).Peers["p"].Install; got != nil {
		t.Errorf("required: %v without a preshared key", got)
	}
	required.Peers[0].Paths = []Path{live(10, 20)} // by a daemon that was not told so
	if got := required.installed(2 * time.Hour); got != nil {
		t.Errorf("required: %v stays without a preshared key", got)
	}
}

func TestWithdrawnKeyDrains(t *testing.T) {
	withdrawn := func(paths ...Path) *scene {
		p := peer(20, 21).with(Classic, paths...)
		p.Keys[0].Withdrawn = true
		return newScene(0, p)
	}
	s := withdrawn()
	if got := s.installed(0); !slices.Equal(got, []Pair{{10, 21}}) {
		t.Errorf("a withdrawn key is begun with: %v", got)
	}
	s = withdrawn(live(10, 20))
	if got := s.pass(10*time.Minute, nil).Peers["p"]; got.Active != (Pair{10, 20}) || len(got.Install) != 2 {
		t.Errorf("with nothing else proven: %+v", got)
	}
	arrives := func(s *scene, path int) { s.Peers[0].Paths[path].Received++ }
	s = withdrawn(live(10, 20), live(10, 21))
	if got := s.installed(0); !slices.Equal(got, []Pair{{10, 21}, {10, 20}}) {
		t.Errorf("when left: %v", got)
	}
	arrives(s, 1)
	if got := s.installed(time.Minute - 1); len(got) != 2 {
		t.Errorf("before the news can have spread: %v", got)
	}
	if got := s.installed(time.Minute); !slices.Equal(got, []Pair{{10, 21}}) {
		t.Errorf("after: %v", got)
	}
	s = withdrawn(live(10, 20), live(10, 21))
	s.Peers[0].Keys[0].Withdrawn = false
	s.at(0)
	arrives(s, 1)
	s.at(1)
	s.Peers[0].Keys[0].Withdrawn = true
	if s.at(time.Hour); len(s.installed(time.Hour+time.Minute-1)) != 2 || len(s.installed(time.Hour+time.Minute)) != 1 {
		t.Error("not drained for a minute from the withdrawal on")
	}
}

// TestWithdrawnKeyIsKeptForItsOwner: the owner, too, may come back by its old key,
// and leaves it later than this node.
func TestWithdrawnKeyIsKeptForItsOwner(t *testing.T) {
	for name, tc := range map[string]struct {
		path func(second int) int // by which the owner sends; -1: none
		want time.Duration
	}{
		"has left":            {func(int) int { return 1 }, time.Minute},
		"left late":           {func(i int) int { return min(i/70, 1) }, 99 * time.Second},
		"came back":           {func(i int) int { return max(0, 1-i/50) + i/70 }, 99 * time.Second},
		"too busy to send":    {func(i int) int { return min(i/50, 1) * (min(i/200, 1)*2 - 1) }, 200 * time.Second},
		"is silent by either": {func(int) int { return -1 }, 12 * 30 * time.Second},
	} {
		p := peer(20, 21).with(Classic, live(10, 20), live(10, 21))
		p.Keys[0].Withdrawn = true
		s, drained := newScene(0, p), time.Duration(-1)
		s.at(0)
		for i := 1; i < 3600 && drained < 0; i++ {
			if path := tc.path(i); path >= 0 {
				s.Peers[0].Paths[path].Received++
			}
			if at := time.Duration(i) * time.Second; len(s.installed(at)) == 1 {
				drained = at
			}
		}
		if drained != tc.want {
			t.Errorf("%s: drained after %s, want %s", name, drained, tc.want)
		}
	}
}

// TestListedBeforeWithdrawn: what both ends stand by comes first, though it be older.
func TestListedBeforeWithdrawn(t *testing.T) {
	p := peer(20, 21).with(Classic, live(10, 20), live(10, 21))
	p.Keys[1].Withdrawn = true
	if got := newScene(0, p).at(0).Peers["p"].Active; got != (Pair{10, 20}) {
		t.Errorf("active is %v, and the peer has withdrawn 21", got)
	}
	s := newScene(0, peer(20).with(Classic, live(10, 20), live(11, 20)))
	s.own(10, 11)
	s.Own.Signed, s.Own.Announced = []uint64{10}, []uint64{10}
	if got := s.at(0).Peers["p"].Active; got != (Pair{10, 20}) {
		t.Errorf("active is %v, and this node lists 10 only", got)
	}
}
