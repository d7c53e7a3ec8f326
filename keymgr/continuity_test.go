// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr_test

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/keytest"
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

func TestEachCertificateHasItsOwnKey(t *testing.T) {
	s := newScene(t)
	seen := map[[32]byte]bool{}
	for range 5 {
		cert, _ := s.a.Identity.Certificate()
		if hash, err := s.a.Identity.KeyHash(); err != nil || hash != cert.SPKI || seen[cert.SPKI] {
			t.Fatalf("key %x, %v; certificate for %x, seen %t", hash, err, cert.SPKI, seen[cert.SPKI])
		}
		seen[cert.SPKI] = true
		s.Certify(s.a)
	}
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

// snapshot reads the files of a directory.
func snapshot(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, e := range entries {
		if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func restore(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name := range snapshot(t, dir) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Wherever the power is cut between the request and the first statement, the node
// comes up with key and certificate that fit, no reader raises an alarm, and the
// next renewal works.
func TestChangeOfKeysSurvivesCrashes(t *testing.T) {
	steps := []string{"next.key", "continuity.json", "node.crt", "node.key", "-next.key", "statement.json"}
	for cut := range len(steps) + 1 {
		b := newBed(t)
		n := b.node("10.244.1.0/24")
		b.Certify(n)
		n.Input.Keys = []keymgr.WGKey{keytest.WGKey(t, "a", 1, b.Clock.Now())}
		v := b.Verifier("reader")
		mustVerify(t, v, n.Sign(), n.Live)
		b.Clock.Add(time.Hour)
		before := snapshot(t, b.dir)
		if _, err := n.Identity.CSR(); err != nil {
			t.Fatal(err)
		}
		asked := snapshot(t, b.dir)
		b.Certify(n)
		n.Sign()
		after := snapshot(t, b.dir)

		mix := maps.Clone(before)
		for _, step := range steps[:cut] {
			switch {
			case step == "next.key":
				mix[step] = asked[step]
			case step == "-next.key":
				delete(mix, "next.key")
			default:
				mix[step] = after[step]
			}
		}
		if cut == len(steps) {
			if diff := !maps.EqualFunc(mix, after, bytes.Equal); diff {
				t.Errorf("the steps do not add up: %v, want %v", slices.Sorted(maps.Keys(mix)), slices.Sorted(maps.Keys(after)))
			}
		}
		restore(t, b.dir, mix)
		n.Identity = b.open()
		for range 2 { // what it has, and after the next renewal
			cert, ok := n.Identity.Certificate()
			if hash, err := n.Identity.KeyHash(); !ok || err != nil || hash != cert.SPKI {
				t.Fatalf("cut %d: certificate %t for %x, key %x, %v", cut, ok, cert.SPKI, hash, err)
			}
			b.Clock.Add(time.Minute)
			if p := mustVerify(t, v, n.Sign(), n.Live); warned(p) {
				t.Errorf("cut %d: warnings %v", cut, p.Warnings)
			}
			b.Certify(n)
			if _, err := os.Stat(filepath.Join(b.dir, "next.key")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("cut %d: a key is left: %v", cut, err)
			}
		}
	}
}

// A request that nobody answers is made again for the same key, also after a restart.
func TestRequestIsRepeatedForTheSameKey(t *testing.T) {
	b := newBed(t)
	n := b.node("10.244.1.0/24")
	if first := csrOf(t, n.Identity); !bytes.Equal(first.RawSubjectPublicKeyInfo, csrOf(t, b.open()).RawSubjectPublicKeyInfo) {
		t.Error("two keys before the first certificate")
	}
	b.Certify(n)
	next := csrOf(t, n.Identity).RawSubjectPublicKeyInfo
	if !bytes.Equal(next, csrOf(t, b.open()).RawSubjectPublicKeyInfo) {
		t.Error("two keys for one renewal")
	}
	if err := os.WriteFile(filepath.Join(b.dir, "next.key"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if id := b.open(); bytes.Equal(next, csrOf(t, id).RawSubjectPublicKeyInfo) {
		t.Error("a spoilt key was used")
	}
}

func TestSpoiltLinksAreNoReasonNotToStart(t *testing.T) {
	b := newBed(t)
	n := b.node("10.244.1.0/24")
	b.Certify(n)
	b.Certify(n)
	if err := os.WriteFile(filepath.Join(b.dir, "continuity.json"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Identity = b.open()
	n.Input.Keys = []keymgr.WGKey{keytest.WGKey(t, "a", 1, b.Clock.Now())}
	if links := n.Sign().Continuity; len(links) != 0 {
		t.Errorf("%d links", len(links))
	}
}

func TestNeedsRoot(t *testing.T) {
	b := newBed(t)
	n := b.node("10.244.1.0/24")
	if why, _ := n.Identity.NeedsRoot(b.Authority.Bundle(), nil); why != "" {
		t.Errorf("%q without a certificate, which is wanted anyway", why)
	}
	b.Certify(n)
	bundle, other := b.Authority.Bundle(), keytest.NewCluster(t).Authority.Bundle()
	status, err := b.Authority.Status()
	if err != nil {
		t.Fatal(err)
	}
	w := keymgr.Window{Root: status.Roots[0].KeyID, From: b.Clock.Now(), To: b.Clock.Now().Add(time.Hour)}
	if why, _ := n.Identity.NeedsRoot(bundle, &w); why != "" {
		t.Errorf("%q, but the certificate is below that root", why)
	}
	w.Root = "0102"
	why, at := n.Identity.NeedsRoot(bundle, &w)
	if why != keymgr.NeedRoot || at.Before(w.From) || !at.Before(w.To) {
		t.Errorf("%q at %v, window %+v", why, at, w)
	}
	if _, again := b.open().NeedsRoot(bundle, &w); !again.Equal(at) {
		t.Errorf("drawn again: %v and %v", at, again)
	}
	if why, at := n.Identity.NeedsRoot(other, nil); why != keymgr.NeedTrusted || !at.Equal(b.Clock.Now()) {
		t.Errorf("%q at %v with another bundle", why, at)
	}
	if why, _ := n.Identity.NeedsRoot([]byte("x"), &w); why != "" {
		t.Errorf("%q with a bundle that is none", why)
	}
}
