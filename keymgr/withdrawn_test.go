// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr_test

import (
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/keytest"
)

// A key that is withdrawn is still handed out, also to a daemon that starts anew,
// until its device is wanted, it is revoked, or an hour has passed.
func TestWithdrawnKeyDrains(t *testing.T) {
	s, restart := reopened(t)
	k := func(gen uint64) keymgr.WGKey { return keytest.WGKey(t, "a", gen, s.Clock.Now()) }
	publish := func(revoked []uint64, keys ...keymgr.WGKey) keymgr.Peer {
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
