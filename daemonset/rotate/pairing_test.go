// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/keytest"
	"github.com/sealane/sealane/keymgr/pairing"
	"github.com/sealane/sealane/keymgr/rotation"
)

// told collects Events.
type told struct {
	mu     sync.Mutex // guards events
	events []kube.EventSpec
}

func (e *told) Event(_ context.Context, s kube.EventSpec) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.events = append(e.events, s)
}

func (e *told) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.events)
}

// store is a node's preshared keys, with one own key and one partner, whose key has
// generation 20.
type store struct {
	*pairings
	own    identity.WGKey
	theirs keymgr.PeerKey
	peer   partner
	events *told
}

func newStore(t *testing.T) *store {
	t.Helper()
	id := keytest.NewCluster(t).Node("self", "10.244.1.0/24").Identity
	own, err := id.WGKeys().Create()
	if err != nil {
		t.Fatal(err)
	}
	s := &store{own: own, theirs: keytest.PeerKey(t, "peer", 20, 50000), events: &told{}}
	s.pairings = newPairings(Config{Identity: id, Events: s.events, Logger: slog.New(slog.DiscardHandler)})
	s.peer = partner{id: keytest.ID("peer"), keys: []keymgr.PeerKey{s.theirs}, secrecy: rotation.Required}
	s.know(s.peer)
	return s
}

func (s *store) know(p partner) { s.meet(map[string]partner{p.id.UID: p}) }

func (s *store) subject() pairing.Subject {
	return pairing.Subject{Peer: s.peer.id, Own: s.own.Public, Theirs: s.theirs.Key()}
}

func (s *store) key() keymgr.PresharedKey {
	k, _ := s.preshared(s.own.Generation, s.theirs.Key())
	return k
}

func TestAgreeWaitsForTheLane(t *testing.T) {
	s := newStore(t)
	before := s.noted()
	result := make(chan error, 1)
	go func() { result <- s.agree(t.Context(), s.subject(), keymgr.PresharedKey{1}) }()
	<-s.changed
	if s.key() != (keymgr.PresharedKey{1}) {
		t.Error("asked to look, and there is no key")
	}
	s.done(before) // a pass that began before
	s.mu.Lock()
	if s.applied >= s.version {
		t.Error("a pass that began before counts for the key")
	}
	s.mu.Unlock()
	select {
	case err := <-result:
		t.Fatalf("answered before the key is in the lane: %v", err)
	default:
	}
	s.done(s.noted())
	if err := <-result; err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]status.Pairing{{Role: "server", Result: "agreed", Count: 1}}, s.soFar()); diff != "" {
		t.Error(diff)
	}
}

func TestAgreeIsUndone(t *testing.T) {
	s := newStore(t)
	agree := func(k keymgr.PresharedKey) error {
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { result <- s.agree(ctx, s.subject(), k) }()
		<-s.changed
		cancel()
		return <-result
	}
	if err := agree(keymgr.PresharedKey{1}); !errors.Is(err, context.Canceled) || !s.key().IsZero() {
		t.Errorf("error %v, and the key is still there: %t", err, !s.key().IsZero())
	}
	if _, _, err := s.take(s.subject(), keymgr.PresharedKey{2}); err != nil {
		t.Fatal(err)
	}
	version := s.noted()
	if err := agree(keymgr.PresharedKey{3}); !errors.Is(err, context.Canceled) || s.key() != (keymgr.PresharedKey{2}) {
		t.Errorf("error %v, key %v; want the one before", err, s.key())
	}
	if s.noted() <= version+1 {
		t.Error("lanes are not brought back to the key before")
	}
	_, undo, err := s.take(s.subject(), keymgr.PresharedKey{4})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.take(s.subject(), keymgr.PresharedKey{5}); err != nil {
		t.Fatal(err)
	}
	if undo(); s.key() != (keymgr.PresharedKey{5}) {
		t.Error("the newer key is undone")
	}
}

func TestWhatIsRefused(t *testing.T) {
	other := keymgr.PublicKey{7}
	for name, tc := range map[string]struct {
		change func(*store, *pairing.Subject)
		want   pairing.Refusal
	}{
		"nothing":               {func(*store, *pairing.Subject) {}, ""},
		"own key unknown":       {func(_ *store, x *pairing.Subject) { x.Own = other }, pairing.RefusedKey},
		"key of nobody":         {func(_ *store, x *pairing.Subject) { x.Theirs = other }, pairing.RefusedKey},
		"key of somebody else":  {func(_ *store, x *pairing.Subject) { x.Peer = keytest.ID("else") }, pairing.RefusedKey},
		"no preshared keys":     {func(s *store, _ *pairing.Subject) { s.peer.secrecy = rotation.Classic }, pairing.RefusedPolicy},
		"preferred":             {func(s *store, _ *pairing.Subject) { s.peer.secrecy = rotation.Preferred }, ""},
		"asking, goes first":    {func(s *store, _ *pairing.Subject) { s.peer.first, s.asking[s.peer.id.UID] = true, true }, pairing.RefusedBusy},
		"asking, goes second":   {func(s *store, _ *pairing.Subject) { s.asking[s.peer.id.UID] = true }, ""},
		"goes first, not asked": {func(s *store, _ *pairing.Subject) { s.peer.first = true }, ""},
		"asking somebody else":  {func(s *store, _ *pairing.Subject) { s.peer.first, s.asking["else"] = true, true }, ""},
	} {
		s := newStore(t)
		subject, change := s.subject(), tc.change
		change(s, &subject)
		s.know(s.peer)
		_, _, err := s.take(subject, keymgr.PresharedKey{1})
		r, refused := errors.AsType[*pairing.RefusedError](err)
		if refused && r.Reason != tc.want || refused != (tc.want != "") || s.key().IsZero() != refused {
			t.Errorf("%s: %v, want refusal %q", name, err, tc.want)
		}
	}
}

func TestKeysOfNoLaneAreForgotten(t *testing.T) {
	s := newStore(t)
	if _, _, err := s.take(s.subject(), keymgr.PresharedKey{1}); err != nil {
		t.Fatal(err)
	}
	slot := rotation.Pair{Own: s.own.Generation, Peer: 20}
	s.know(s.peer)
	if got := s.with([]identity.WGKey{s.own}, s.peer.keys); len(got) != 1 || got[slot].At.IsZero() || got[slot].Client {
		t.Errorf("known: %v, want %v as server", got, slot)
	}
	if _, ok := s.preshared(s.own.Generation+1, s.theirs.Key()); ok {
		t.Error("a key for another generation")
	}
	if _, ok := s.preshared(s.own.Generation, keymgr.PublicKey{7}); ok {
		t.Error("a key for another peer")
	}
	gone := s.peer
	gone.keys = nil
	s.know(gone)
	if !s.key().IsZero() || len(s.with([]identity.WGKey{s.own}, s.peer.keys)) != 0 {
		t.Error("still there, and the peer has no key any more")
	}
	s.know(s.peer)
	if _, _, err := s.take(s.subject(), keymgr.PresharedKey{1}); err != nil {
		t.Fatal(err)
	}
	s.keys = func() []identity.WGKey { return nil }
	s.know(s.peer)
	s.keys = func() []identity.WGKey { return []identity.WGKey{s.own} }
	if !s.key().IsZero() {
		t.Error("still there after the own key was removed")
	}
}

func TestOperatorHearsOnce(t *testing.T) {
	s := newStore(t)
	fail := func(ctx context.Context, err error) {
		s.failed(ctx, roleClient, s.peer.id, fmt.Errorf("pair: %w", err))
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, step := range []struct {
		ctx  context.Context
		err  error
		want int
	}{
		{t.Context(), pairing.ErrUnreachable, 0},
		{t.Context(), &pairing.RefusedError{Reason: pairing.RefusedKey}, 0},
		{ended, pairing.ErrDowngrade, 0},
		{t.Context(), pairing.ErrDowngrade, 1},
		{t.Context(), pairing.ErrDowngrade, 1},
		{t.Context(), pairing.ErrCertificate, 2},
		{t.Context(), pairing.ErrProtocol, 3},
		{t.Context(), pairing.ErrCertificate, 3},
	} {
		if fail(step.ctx, step.err); s.events.count() != step.want {
			t.Errorf("after %v: %d Events, want %d", step.err, s.events.count(), step.want)
		}
	}
	want := []status.Pairing{
		{Role: "client", Result: "certificate", Count: 2},
		{Role: "client", Result: "downgrade", Count: 3},
		{Role: "client", Result: "protocol", Count: 1},
		{Role: "client", Result: "refused_unknown_key", Count: 1},
		{Role: "client", Result: "unreachable", Count: 1},
	}
	if diff := cmp.Diff(want, s.soFar()); diff != "" {
		t.Error(diff)
	}
}
