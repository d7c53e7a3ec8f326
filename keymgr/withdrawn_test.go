// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr_test

import (
	"slices"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/keytest"
)

// A key that is withdrawn is still handed out, also to a daemon that starts anew,
// until its device is wanted, it is revoked, or an hour has passed.
func TestWithdrawnKeyDrains(t *testing.T) {
	s, restart := reopened(t)
	k := func(gen uint64) identity.WGKey { return keytest.WGKey(t, "a", gen, s.Clock.Now()) }
	publish := func(revoked []uint64, keys ...identity.WGKey) keymgr.Peer {
		t.Helper()
		s.Clock.Add(time.Second)
		s.a.Input.Keys, s.a.Input.RevokedGens = keys, revoked
		return mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)
	}
	check := func(p keymgr.Peer, want ...uint64) {
		t.Helper()
		var have []uint64
		for _, w := range p.Withdrawn {
			have = append(have, w.Generation())
		}
		if len(have) != len(want) || len(have) > 0 && have[0] != want[0] {
			t.Errorf("withdrawn generations %v, want %v", have, want)
		}
	}
	k5, k6, k7, k8 := k(5), k(6), k(7), k(8)
	check(publish(nil, k5, k6))
	check(publish(nil, k6), 5)
	restart()
	check(publish(nil, k6), 5)
	s.Clock.Add(2 * time.Hour)
	check(publish(nil, k6))
	check(publish(nil, k6, k7))
	check(publish(nil, k7), 6)
	check(publish([]uint64{6}, k7))
	check(publish(nil, k7, k8))
}

func TestSinceIsAsPublished(t *testing.T) {
	s := newScene(t)
	made := s.a.Input.Keys[0].Created
	p := mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)
	if got := p.Keys[0].Since(); !got.Equal(made.Truncate(time.Second)) {
		t.Errorf("key since %s, was made %s", got, made)
	}
}

// TestWithdrawnKeyIsStillItsNodes: nobody else can list it, not even where the reader
// has started anew, until its node has gone.
func TestWithdrawnKeyIsStillItsNodes(t *testing.T) {
	s, restart := reopened(t)
	mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)
	mustVerify(t, s.verifier, s.b.Sign(), s.b.Live)
	s.Clock.Add(time.Second)
	stolen := s.a.Input.Keys[0]
	s.a.Input.Keys = []identity.WGKey{keytest.WGKey(t, "a", 2, s.Clock.Now())}
	mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)
	stolen.Generation = 2
	s.b.Input.Keys = append(s.b.Input.Keys, stolen)
	for range 2 {
		_, err := s.verifier.Verify(s.b.Sign(), s.b.Live)
		wantReason(t, err, keymgr.ErrDuplicateKey)
		if p := mustVerify(t, s.verifier, s.a.Sign(), s.a.Live); len(p.Withdrawn) != 1 {
			t.Errorf("withdrawn %v, want the old key", p.Withdrawn)
		}
		restart()
	}
	if err := s.verifier.Forget(s.a.Live.ID); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, s.verifier, s.b.Sign(), s.b.Live)
}

// TestRevokedGenerationStaysRevoked: a reader that has missed the first statement that
// revokes a generation does not take it for one that is merely withdrawn.
func TestRevokedGenerationStaysRevoked(t *testing.T) {
	s := newScene(t)
	mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)
	sign := func(gen uint64, revoked ...uint64) keymgr.Signed {
		t.Helper()
		s.Clock.Add(time.Second)
		s.a.Input.Keys, s.a.Input.RevokedGens = []identity.WGKey{keytest.WGKey(t, "a", gen, s.Clock.Now())}, revoked
		return s.a.Sign()
	}
	sign(2, 1) // which the reader does not see
	s.a.Input.RevokedGens = nil
	if why := s.a.Identity.NeedsStatement(s.a.Input); why != "" {
		t.Errorf("another statement (%s) to revoke no more what is gone", why)
	}
	s.Clock.Add(time.Second)
	p := mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)
	if len(p.Withdrawn) != 0 || !slices.Equal(p.RevokedGens, []uint64{1}) {
		t.Errorf("withdrawn %v, revoked %v; want the first one revoked", p.Withdrawn, p.RevokedGens)
	}
	for gen := uint64(3); gen < 50; gen++ {
		p = mustVerify(t, s.verifier, sign(gen, gen-1), s.a.Live)
	}
	if n := len(p.RevokedGens); n != 32 || p.RevokedGens[0] != 17 || p.RevokedGens[31] != 48 {
		t.Errorf("revoked %v, want the newest 32", p.RevokedGens)
	}
}
