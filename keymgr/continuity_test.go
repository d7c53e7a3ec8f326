// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr_test

import (
	"slices"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr"
)

// renewed is a scene in which node a has renewed its certificate so many times
// since the reader saw its last statement.
func renewed(t *testing.T, times int) (*scene, keymgr.Signed) {
	t.Helper()
	s := newScene(t)
	mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)
	for range times {
		s.Clock.Add(time.Hour)
		s.Certify(s.a)
	}
	return s, s.a.Sign()
}

func warned(p keymgr.Peer) bool {
	return slices.ContainsFunc(p.Warnings, func(w keymgr.Warning) bool { return w.Code == keymgr.WarnContinuity })
}

func TestContinuity(t *testing.T) {
	for times := range keymgr.MaxLinks + 1 {
		s, signed := renewed(t, times)
		p := mustVerify(t, s.verifier, signed, s.a.Live)
		if warned(p) || len(signed.Continuity) != times {
			t.Errorf("%d renewals: %d links, warnings %v", times, len(signed.Continuity), p.Warnings)
		}
	}
	s, signed := renewed(t, keymgr.MaxLinks+2)
	if p := mustVerify(t, s.verifier, signed, s.a.Live); !warned(p) || len(signed.Continuity) != keymgr.MaxLinks {
		t.Errorf("more renewals than links: %d links, warnings %v", len(signed.Continuity), p.Warnings)
	}
}

// Links serve every later statement, also for who missed the first one.
func TestContinuityOfLaterStatements(t *testing.T) {
	s, _ := renewed(t, 2)
	s.Clock.Add(time.Hour)
	if p := mustVerify(t, s.verifier, s.a.Sign(), s.a.Live); warned(p) {
		t.Errorf("warnings %v", p.Warnings)
	}
}

// The alarm is of the first statement under the new key, not of every look at it.
func TestBrokenContinuityWarnsOnceOrIsRefused(t *testing.T) {
	for _, strict := range []bool{false, true} {
		s := newScene(t)
		cfg := s.VerifierConfig("self")
		cfg.StrictContinuity = strict
		v := s.Open(cfg)
		mustVerify(t, v, s.a.Sign(), s.a.Live)
		s.Clock.Add(time.Minute)
		thief := *s.a // who is in league with the authority, and has another key
		thief.Identity = s.Identity(s.a.Live.ID, t.TempDir())
		s.Certify(&thief)
		signed := thief.Sign()
		p, err := v.Verify(signed, s.a.Live)
		if strict {
			wantReason(t, err, keymgr.ErrContinuity)
			s.Clock.Add(time.Minute)
			mustVerify(t, v, s.a.Sign(), s.a.Live) // the node itself goes on
			continue
		}
		if err != nil || !warned(p) {
			t.Fatalf("warnings %v, %v", p.Warnings, err)
		}
		if p := mustVerify(t, v, signed, s.a.Live); warned(p) {
			t.Error("warned again of the same statement")
		}
	}
}

func TestForgedLinks(t *testing.T) {
	s := newScene(t)
	first := s.a.Sign()
	for range 2 {
		s.Clock.Add(time.Hour)
		s.Certify(s.a)
	}
	signed := s.a.Sign()
	s.Certify(s.b)
	good, strangers := signed.Continuity, s.b.Sign().Continuity
	forged := func(key, signature keymgr.Link) keymgr.Link {
		return keymgr.Link{Key: key.Key, Signature: signature.Signature}
	}
	for name, tc := range map[string]struct {
		links []keymgr.Link
		want  error
	}{
		"good":           {good, nil},
		"more":           {slices.Concat(strangers, good), nil},
		"none":           {nil, keymgr.ErrContinuity},
		"last only":      {good[1:], keymgr.ErrContinuity},
		"first only":     {good[:1], keymgr.ErrContinuity},
		"other order":    {[]keymgr.Link{good[1], good[0]}, keymgr.ErrContinuity},
		"of another":     {strangers, keymgr.ErrContinuity},
		"cut signature":  {[]keymgr.Link{good[0], {Key: good[1].Key, Signature: good[1].Signature[:8]}}, keymgr.ErrContinuity},
		"mixed":          {[]keymgr.Link{good[0], forged(good[1], good[0])}, keymgr.ErrContinuity},
		"no key":         {[]keymgr.Link{good[0], {Signature: good[1].Signature}}, keymgr.ErrContinuity},
		"detour":         {[]keymgr.Link{good[0], strangers[0], good[1]}, keymgr.ErrContinuity},
		"too many":       {slices.Repeat(good, 3), keymgr.ErrTooLarge},
		"long key":       {[]keymgr.Link{{Key: make([]byte, 129), Signature: []byte{1}}}, keymgr.ErrTooLarge},
		"long signature": {[]keymgr.Link{{Key: []byte{1}, Signature: make([]byte, 81)}}, keymgr.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := s.VerifierConfig("self")
			cfg.StrictContinuity = true
			v := s.Open(cfg)
			mustVerify(t, v, first, s.a.Live)
			given := signed
			given.Continuity = tc.links
			_, err := v.Verify(given, s.a.Live)
			if tc.want == nil && err == nil {
				return
			}
			wantReason(t, err, tc.want)
		})
	}
}

// A mark of an older version has no key, but the statement that it had.
func TestContinuityAcrossRestartOfReader(t *testing.T) {
	s, restart := reopened(t)
	mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)
	restart()
	s.Clock.Add(time.Minute)
	thief := *s.a
	thief.Identity = s.Identity(s.a.Live.ID, t.TempDir())
	s.Certify(&thief)
	if p := mustVerify(t, s.verifier, thief.Sign(), s.a.Live); !warned(p) {
		t.Error("no warning after a restart of the reader")
	}
}
