// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package identity_test

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/keytest"
)

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
		n.Input.Keys = []identity.WGKey{keytest.WGKey(t, "a", 1, b.Clock.Now())}
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
	n.Input.Keys = []identity.WGKey{keytest.WGKey(t, "a", 1, b.Clock.Now())}
	if links := n.Sign().Continuity; len(links) != 0 {
		t.Errorf("%d links", len(links))
	}
}
