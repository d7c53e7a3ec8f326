// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotate

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/ca/memorystore"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/keytest"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay"
)

// member is a node with a Rotator and no network.
type member struct {
	*keytest.Node
	*Rotator
	t        *testing.T
	verifier *keymgr.Verifier
	events   *told
	peers    []*member
	lanes    []overlay.TunnelState
	request  cluster.RotationRequest
	clock    *keytest.Clock
}

// couple returns two nodes that know each other's first keys. That of a is older.
func couple(t *testing.T, mode keymgr.PSKMode) (a, b *member) {
	t.Helper()
	clock := keytest.NewClock()
	clock.Add(time.Since(clock.Now()) - time.Minute)
	c := keytest.NewClusterWith(t, clock, ca.Config{Store: memorystore.New(), Clock: clock.Now})
	var nodes []*member
	for i, name := range []string{"a", "b"} {
		clock.Add(2 * time.Second)
		m := &member{Node: c.Node(name, []string{"10.244.1.0/24", "10.244.2.0/24"}[i]), t: t, clock: clock, events: &told{}}
		cfg := c.VerifierConfig(name)
		cfg.PSK = mode
		m.verifier = c.Open(cfg)
		m.Input.PSK, m.Input.PSKPort = mode, nettest.FreePort(t)
		m.restart(mode)
		nodes = append(nodes, m)
		m.decide()
		m.sign()
	}
	a, b = nodes[0], nodes[1]
	a.peers, b.peers = []*member{b}, []*member{a}
	return a, b
}

func (m *member) restart(mode keymgr.PSKMode) {
	m.t.Helper()
	var err error
	m.Rotator, err = New(Config{
		Identity: m.Identity, Authenticate: m.verifier.Authenticate, Period: time.Hour, Mode: mode, Events: m.events,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.boot = time.Time{} // keys of these nodes are older than the test, and that is well
}

// sign publishes the keys that the last decision wants listed.
func (m *member) sign() {
	m.t.Helper()
	m.Input.Keys, m.Input.RevokedGens = nil, m.last.Revoke
	for _, k := range m.Identity.WGKeys().All() {
		if slices.Contains(m.last.Publish, k.Generation) {
			m.Input.Keys = append(m.Input.Keys, k)
		}
	}
	m.Sign()
}

func (m *member) scene() Scene {
	m.t.Helper()
	home := netip.MustParseAddr("127.0.0.1")
	s := Scene{Request: m.request, Addresses: []netip.Addr{home}}
	s.Published, _ = m.Identity.Last()
	for _, p := range m.peers {
		last, _ := p.Identity.Last()
		peer, err := m.verifier.Verify(last, p.Live)
		if err != nil {
			m.t.Fatal(err)
		}
		peer.Endpoints = []netip.Addr{home}
		s.Peers = append(s.Peers, Peer{Peer: peer, Addr: home})
	}
	return s
}

func (m *member) decide() rotation.Decision {
	m.t.Helper()
	pass := m.Begin()
	d, err := pass.Step(m.t.Context(), m.scene(), m.lanes)
	if err != nil {
		m.t.Fatal(err)
	}
	pass.Commit()
	return d
}

func (m *member) newest() identity.WGKey {
	all := m.Identity.WGKeys().All()
	return all[len(all)-1]
}

// lane is one in the kernel, with a session of now if it is live.
func (m *member) lane(own identity.WGKey, theirs keymgr.PublicKey, at time.Time) overlay.TunnelState {
	return overlay.TunnelState{Key: own.Public, Peers: []overlay.PeerState{{
		Key: theirs, Preshared: m.mode != keymgr.PSKOff, LastHandshake: at, Received: 1, Sent: 1,
	}}}
}

func (m *member) slot(o *member) rotation.Pair {
	return rotation.Pair{Own: m.newest().Generation, Peer: o.newest().Generation}
}

func TestKeysAreMadeAndRemoved(t *testing.T) {
	a, _ := couple(t, keymgr.PSKOff)
	a.peers = nil
	first := a.newest()
	if s := a.Shown(); s.Reason != rotation.First || s.Decision.State != rotation.Steady {
		t.Errorf("shown: %+v, want the first key", s)
	}
	if d := a.decide(); d.Create != "" || len(a.Identity.WGKeys().All()) != 1 {
		t.Errorf("another key without a reason: %+v", d)
	}
	a.clock.Add(2 * time.Second)
	a.request.Compromised = first.Created
	pass := a.Begin()
	d, err := pass.Step(t.Context(), a.scene(), nil)
	if err != nil {
		t.Fatal(err)
	}
	second := a.newest()
	if second.Generation != first.Generation+1 || d.State != rotation.Keyed || !slices.Equal(d.Publish, []uint64{first.Generation}) {
		t.Errorf("key %d after %d, %s, publish %v; want it not listed before its devices are up", second.Generation, first.Generation, d.State, d.Publish)
	}
	if a.Shown().Reason != rotation.Compromise {
		t.Errorf("reason %q", a.Shown().Reason)
	}
	if a.Begin().Commit() || !pass.Commit() {
		t.Error("devices of the new key are no news, or those of the old one are")
	}
	if d := a.decide(); d.State != rotation.Retiring || !slices.Equal(d.Publish, []uint64{second.Generation}) || !slices.Equal(d.Revoke, []uint64{first.Generation}) {
		t.Errorf("%s, publish %v, revoke %v; want the first key revoked", d.State, d.Publish, d.Revoke)
	}
	since := a.Shown().Since
	if a.decide(); len(a.Identity.WGKeys().All()) != 2 || !a.Shown().Since.Equal(since) {
		t.Error("removed before peers can know of it, or the state begins anew")
	}
	a.sign()
	if d := a.decide(); d.State != rotation.Steady || len(a.Identity.WGKeys().All()) != 1 || a.newest().Generation != second.Generation {
		t.Errorf("%s with keys %v, want the second one alone", d.State, a.Identity.WGKeys().All())
	}
	if a.Shown().Reason != rotation.Compromise {
		t.Error("the reason of the newest key is forgotten")
	}
}

// TestGlanceSeesTheKernel: a handshake changes the decision, traffic does not.
func TestGlanceSeesTheKernel(t *testing.T) {
	a, b := couple(t, keymgr.PSKOff)
	first, theirs := a.newest(), b.newest().Public
	a.lanes = []overlay.TunnelState{a.lane(first, theirs, time.Now())}
	if d := a.decide(); !d.Peers[b.Live.ID.UID].Live || d.Peers[b.Live.ID.UID].Active != a.slot(b) {
		t.Errorf("%+v, want a live lane", d.Peers)
	}
	a.clock.Add(2 * time.Second)
	a.request.At = first.Created.Add(time.Second)
	a.decide() // makes the key
	a.decide() // lists it
	a.sign()
	second := a.newest()
	a.lanes = append(a.lanes, a.lane(second, theirs, time.Time{}))
	old := rotation.Pair{Own: first.Generation, Peer: b.newest().Generation}
	if d := a.decide(); d.State != rotation.Published || d.Peers[b.Live.ID.UID].Active != old {
		t.Fatalf("%s, active %v; want the old lane to go on", d.State, d.Peers[b.Live.ID.UID].Active)
	}
	a.lanes[0].Peers[0].Received++
	if changed, next := a.Poll(t.Context(), a.lanes); changed || next <= 0 || next > time.Second {
		t.Errorf("traffic changes the decision %t, look again in %s", changed, next)
	}
	a.lanes[1].Peers[0].LastHandshake = time.Now()
	if changed, _ := a.Poll(t.Context(), a.lanes); !changed {
		t.Error("a handshake by the new key changes nothing")
	}
	if d := a.decide(); d.Peers[b.Live.ID.UID].Active != a.slot(b) || a.Shown().Decision.State != rotation.Published {
		t.Errorf("active %v, want the new lane", d.Peers[b.Live.ID.UID].Active)
	}
	stranger := overlay.TunnelState{Key: keymgr.PublicKey{9}, Peers: a.lanes[1].Peers}
	if got := NewPaths(a.Identity.WGKeys().All(), []overlay.TunnelState{stranger}); len(got) != 0 {
		t.Errorf("a lane with another's key: %v", got)
	}
}

// serve lets peers ask the node, and brings what they agree on to the lanes at once.
func (m *member) serve() {
	go func() {
		if err := m.Serve(m.t.Context(), m.Input.PSKPort); err != nil {
			m.t.Errorf("serve: %v", err)
		}
	}()
	go func() {
		for {
			select {
			case <-m.t.Context().Done():
				return
			case <-m.Changed():
				m.pairs.done(m.pairs.noted())
			}
		}
	}()
}

// await lets exchanges happen until something is so.
func (m *member) await(what string, is func() bool) {
	m.t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); {
		if time.Now().After(deadline) {
			m.t.Fatalf("not so after a minute: %s", what)
		}
		m.Poll(m.t.Context(), m.lanes)
		select {
		case e := <-m.Results():
			m.Take(e)
		case <-time.After(10 * time.Millisecond): // there is no event for "ask again"
		}
	}
}

// exchange waits until one more exchange has ended well; the peer may not have begun
// to listen yet.
func (m *member) exchange() {
	m.t.Helper()
	before := m.pairings("client", "agreed")
	m.await("an exchange that ends well", func() bool { return m.pairings("client", "agreed") > before })
}

func (m *member) pairings(role, result string) uint64 {
	for _, p := range m.Pairings() {
		if p.Role == role && p.Result == result {
			return p.Count
		}
	}
	return 0
}

func TestExchangeBetweenTwoNodes(t *testing.T) {
	a, b := couple(t, keymgr.PSKRequired)
	b.serve()
	if d := b.decide(); !a.decide().Peers[b.Live.ID.UID].Initiator || d.Peers[a.Live.ID.UID].Initiator {
		t.Error("the node with the older key does not go first")
	}
	a.exchange()
	for range 20 {
		a.Poll(t.Context(), nil)
	}
	ours, ok := a.Preshared(a.newest().Generation, b.newest().Public)
	theirs, too := b.Preshared(b.newest().Generation, a.newest().Public)
	if !ok || !too || ours != theirs || ours.IsZero() {
		t.Errorf("keys are there %t, %t, and equal %t", ok, too, ours == theirs)
	}
	if n, m := a.pairings("client", "agreed"), b.pairings("server", "agreed"); n != 1 || m != 1 {
		t.Errorf("%d exchanges as client, %d as server; want one", n, m)
	}
	d := a.decide().Peers[b.Live.ID.UID]
	if len(d.Install) != 1 || !d.Install[0].Preshared || !d.Install[0].Initiate {
		t.Errorf("client installs %+v, want to start handshakes", d.Install)
	}
	if d := b.decide().Peers[a.Live.ID.UID]; len(d.Install) != 1 || d.Install[0].Initiate {
		t.Errorf("server installs %+v, want not to start handshakes", d.Install)
	}
}

// TestRefusalLeavesTheOldLane: the peer has not heard of the new key.
func TestRefusalLeavesTheOldLane(t *testing.T) {
	a, b := couple(t, keymgr.PSKRequired)
	b.serve()
	b.decide()
	a.decide()
	a.exchange()
	first, old := a.newest(), a.slot(b)
	before, _ := a.Preshared(first.Generation, b.newest().Public)
	a.lanes = []overlay.TunnelState{a.lane(first, b.newest().Public, time.Now())}
	a.clock.Add(2 * time.Second)
	a.request.At = first.Created.Add(time.Second)
	a.decide()
	a.decide()
	a.sign()
	a.decide()
	// The new key is the younger one, so that this node lets the other go first for a second.
	a.await("a refusal", func() bool { return a.pairings("client", "refused_unknown_key") > 0 })
	d := a.decide()
	if p := d.Peers[b.Live.ID.UID]; d.State != rotation.Published || p.Active != old || !p.Live || len(p.Install) != 1 {
		t.Errorf("%s, %+v; want the old lane to go on", d.State, p)
	}
	if now, ok := a.Preshared(first.Generation, b.newest().Public); !ok || now != before {
		t.Error("the old lane has lost its preshared key")
	}
	if a.events.count() != 0 || b.events.count() != 0 {
		t.Error("an Event, and nothing is wrong")
	}
	b.decide() // hears of it
	a.exchange()
	if _, ok := a.Preshared(a.newest().Generation, b.newest().Public); !ok {
		t.Error("no preshared key for the new lane")
	}
}

// TestAttackIsToldOnce: somebody else answers at the peer's address, and again.
func TestAttackIsToldOnce(t *testing.T) {
	a, b := couple(t, keymgr.PSKRequired)
	_, foreign := couple(t, keymgr.PSKRequired) // of another authority
	foreign.Input.PSKPort = b.Input.PSKPort
	foreign.serve()
	a.decide()
	a.await("two failures", func() bool { return a.pairings("client", "certificate") > 1 })
	if a.events.count() != 1 || a.events.events[0].Reason != "PairingRefused" {
		t.Errorf("Events %+v, want one", a.events.events)
	}
	if d := a.decide().Peers[b.Live.ID.UID]; len(d.Install) != 0 {
		t.Errorf("installs %+v without a preshared key", d.Install)
	}
}

// TestRequestOfTheFutureIsAnsweredOnce: whoever asked has a clock that is ahead.
func TestRequestOfTheFutureIsAnsweredOnce(t *testing.T) {
	a, _ := couple(t, keymgr.PSKOff)
	a.peers = nil
	first := a.newest()
	a.request.At = time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("", -24*3600))
	a.request.Compromised = a.request.At
	for range 10 {
		a.clock.Add(time.Second)
		a.decide()
		a.sign()
	}
	if n := a.newest(); n.Generation != first.Generation+1 || len(a.Identity.WGKeys().All()) != 1 {
		t.Errorf("key %d after %d, want one new key", n.Generation, first.Generation)
	}
	a.clock.Add(time.Second)
	a.request.Compromised = a.request.At.Add(-time.Hour)
	a.decide()
	if n := a.newest(); n.Generation != first.Generation+2 {
		t.Errorf("key %d after %d, want another for another request", n.Generation, first.Generation)
	}
}
