// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/keytest"
	"github.com/sealane/sealane/keymgr/markstore"
)

// TestForgedListDoesNotPoison: a list of another authority that got in force while its root was
// trusted stays in force only until the next list of the real one, whatever their numbers.
func TestForgedListDoesNotPoison(t *testing.T) {
	for name, number := range map[string]uint64{
		"largest number": math.MaxUint64,
		"of this moment": uint64(keytest.NewClock().Now().Add(keymgr.ClockSkew).UnixMilli()),
	} {
		t.Run(name, func(t *testing.T) {
			c, thief := keytest.NewCluster(t), keytest.NewCluster(t)
			n := c.Node("n1", "10.244.1.0/24")
			marks := markstore.New(t.TempDir())
			cfg := c.VerifierConfig("n2")
			cfg.Marks, cfg.Revocations = marks, marks
			if _, err := c.Open(cfg).Verify(n.Sign(), n.Live); err != nil {
				t.Fatal(err)
			}
			// As a version that asked for no signature of the bundle has stored it.
			if err := marks.SaveRevocations(mustSign(t, thief, list(number, blocked(n)))); err != nil {
				t.Fatal(err)
			}
			v := c.Open(cfg)
			if _, err := v.Verify(n.Sign(), n.Live); !errors.Is(err, keymgr.ErrRevoked) {
				t.Errorf("before the real list: %v; want what is in force to stay so", err)
			}
			genuine := mustSign(t, c, list(uint64(c.Clock.Now().UnixMilli())))
			for range 2 { // the second time after a restart
				if err := v.SetRevocations(genuine); err != nil {
					t.Fatalf("the controller's list: %v", err)
				}
				if _, err := v.Verify(n.Sign(), n.Live); err != nil {
					t.Errorf("after it: %v", err)
				}
				v = c.Open(cfg)
			}
		})
	}
}

// TestGenuineListOutlivesItsRoot: when the root of a list is trusted no more, what the list
// refuses stays refused until another one arrives.
func TestGenuineListOutlivesItsRoot(t *testing.T) {
	before, after := keytest.NewCluster(t), keytest.NewCluster(t)
	n := before.Node("n1", "10.244.1.0/24")
	marks := markstore.New(t.TempDir())
	cfg := before.VerifierConfig("n2")
	cfg.Marks, cfg.Revocations = marks, marks
	if err := before.Open(cfg).SetRevocations(mustSign(t, before, list(9, blocked(n)))); err != nil {
		t.Fatal(err)
	}
	v := after.Open(cfg)
	if _, revoked := v.Revoked(n.Live.ID, keymgr.CertificateInfo{}); !revoked {
		t.Error("a change of roots readmits")
	}
	wantReason(t, v.SetRevocations(mustSign(t, before, list(10))), keymgr.ErrChain)
	if err := v.SetRevocations(mustSign(t, after, list(8, blocked(n)))); err != nil {
		t.Errorf("the next list: %v", err)
	}
	wantReason(t, v.SetRevocations(mustSign(t, after, list(7))), keymgr.ErrReplay)
}

// TestExpiredIssuerStillBars: that the issuer of the list in force has expired lets nobody put
// back an older list.
func TestExpiredIssuerStillBars(t *testing.T) {
	s := newScene(t)
	s.revoke(t, list(9, blocked(s.a)))
	s.Clock.Add(300 * 24 * time.Hour)
	if err := s.Authority.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Clock.Add(100 * 24 * time.Hour)
	wantReason(t, s.verifier.SetRevocations(s.sign(t, list(8))), keymgr.ErrReplay)
}

func TestListsFromTheFutureAreRefused(t *testing.T) {
	s := newScene(t)
	now := s.Clock.Now()
	limit := uint64(now.Add(keymgr.ClockSkew).UnixMilli())
	late := func(number uint64, at time.Time) keymgr.RevocationList {
		l := list(number, blocked(s.a))
		l.IssuedAt = at
		return l
	}
	for name, l := range map[string]keymgr.RevocationList{
		"number": late(limit+1, now), "largest": late(math.MaxUint64, now), "issuedAt": late(5, now.Add(keymgr.ClockSkew+time.Second)),
	} {
		err := s.verifier.SetRevocations(s.sign(t, l))
		if wantReason(t, err, keymgr.ErrClock); err == nil || !strings.Contains(err.Error(), "clock") {
			t.Errorf("%s: %v; want the clock named", name, err)
		}
	}
	s.revoke(t, late(limit, now.Add(keymgr.ClockSkew)))
}

// TestStatementsFromTheFuture are refused by their number as by their time, and such a mark on
// disk is no bar.
func TestStatementsFromTheFuture(t *testing.T) {
	s := newScene(t)
	s.Clock.Add(2 * time.Hour)
	limit := uint64(s.Clock.Now().Add(keymgr.ClockSkew).UnixMilli())
	ahead := s.a.Edit(func(st *keymgr.Statement) { st.Seq = limit + 1 })
	_, err := s.verifier.Verify(ahead, s.a.Live)
	if wantReason(t, err, keymgr.ErrClock); err == nil || !strings.Contains(err.Error(), "clock") {
		t.Errorf("%v; want the clock named", err)
	}
	mustVerify(t, s.verifier, s.a.Edit(func(st *keymgr.Statement) { st.Seq = limit }), s.a.Live)
	wantReason(t, func() error { _, err := s.verifier.Verify(s.a.Sign(), s.a.Live); return err }(), keymgr.ErrReplay)

	// A mark of an earlier version, which took such numbers.
	marks := markstore.New(t.TempDir())
	cfg := s.VerifierConfig("self")
	cfg.Marks = marks
	mustVerify(t, s.Open(cfg), s.a.Edit(func(st *keymgr.Statement) { st.Seq = limit }), s.a.Live)
	s.Clock.Add(-time.Hour) // by which that number is from the future
	v := s.Open(cfg)
	records, err := marks.Load()
	if err != nil || len(records) != 1 {
		t.Fatal(records, err)
	}
	if _, err := v.Verify(records[0].Statement, s.a.Live); errors.Is(err, keymgr.ErrClock) {
		t.Errorf("what was accepted before: %v", err)
	}
	earlier := s.a.Edit(func(st *keymgr.Statement) {
		st.Seq, st.PrevSeq = uint64(s.Clock.Now().UnixMilli()), 0
		st.IssuedAt = s.Clock.Now()
	})
	peer := mustVerify(t, v, earlier, s.a.Live)
	if want := fmt.Sprint(s.Clock.Now().UnixMilli()); fmt.Sprint(peer.Seq) != want {
		t.Errorf("sequence %d, want %s", peer.Seq, want)
	}
	wantReason(t, func() error {
		_, err := v.Verify(s.a.Edit(func(st *keymgr.Statement) { st.Seq = 7 }), s.a.Live)
		return err
	}(), keymgr.ErrReplay)
}
