// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package identity_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/keytest"
)

func TestGenerationsOnDisk(t *testing.T) {
	b := newBed(t)
	keys := b.open().WGKeys()
	first, err := keys.Ensure()
	if err != nil {
		t.Fatal(err)
	}
	if want := uint64(b.Clock.Now().Unix()); first.Generation != want {
		t.Errorf("first generation is %d, want the clock's %d", first.Generation, want)
	}
	if again, err := keys.Ensure(); err != nil || again != first {
		t.Errorf("Ensure gave %v, %v; want the first generation again", again, err)
	}
	second, err := keys.Create()
	if err != nil || second.Generation != first.Generation+1 || second.Public == first.Public {
		t.Errorf("Create gave %v, %v; want another key after %d", second, err, first.Generation)
	}
	if keymgr.Parity(first.Generation) == keymgr.Parity(second.Generation) {
		t.Error("consecutive generations share a device slot")
	}
	for _, k := range []identity.WGKey{first, second} {
		if pub, err := k.Private.Public(); err != nil || pub != k.Public {
			t.Errorf("generation %d: public key %s does not belong to the private one (%v)", k.Generation, k.Public, err)
		}
		if k.Private[0]&7 != 0 || k.Private[31]&0xc0 != 0x40 {
			t.Errorf("generation %d is not clamped", k.Generation)
		}
	}
	want := []identity.WGKey{first, second}
	if got := b.open().WGKeys().All(); !slices.Equal(got, want) {
		t.Errorf("after a restart: %v, want %v", got, want)
	}

	if err := keys.Remove(first.Generation); err != nil {
		t.Fatal(err)
	}
	for _, gen := range []uint64{first.Generation, second.Generation, 7} {
		if err := keys.Remove(gen); !errors.Is(err, identity.ErrNoGeneration) {
			t.Errorf("Remove(%d) = %v, want ErrNoGeneration", gen, err)
		}
	}
	if got := b.open().WGKeys().All(); !slices.Equal(got, want[1:]) {
		t.Errorf("after Remove and a restart: %v, want %v", got, want[1:])
	}
}

// A node that has lost its disk, but not its Node object, is believed again.
func TestGenerationsAfterLostDisk(t *testing.T) {
	s := newScene(t)
	if _, err := s.a.Identity.WGKeys().Ensure(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.a.Identity.WGKeys().Create(); err != nil {
		t.Fatal(err)
	}
	s.a.Input.Keys = s.a.Identity.WGKeys().All()
	mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)

	s.Clock.Add(2 * time.Second)
	s.a.Identity = s.Identity(s.a.Live.ID, t.TempDir())
	s.Certify(s.a)
	key, err := s.a.Identity.WGKeys().Ensure()
	if err != nil {
		t.Fatal(err)
	}
	s.a.Input.Keys = []identity.WGKey{key}
	p := mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)
	if len(p.Warnings) != 2 || p.Warnings[0].Code != keymgr.WarnHistory || p.Warnings[1].Code != keymgr.WarnContinuity {
		t.Errorf("warnings are %v, want one of the history and one of continuity", p.Warnings)
	}
}

func TestGenerationFileOfOtherNumber(t *testing.T) {
	b := newBed(t)
	key, err := b.open().WGKeys().Ensure()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(b.dir, "wg-*.key"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files are %v, %v", files, err)
	}
	if err := os.Rename(files[0], filepath.Join(b.dir, "wg-1.key")); err != nil {
		t.Fatal(err)
	}
	_, err = identity.Open(identity.Config{Dir: b.dir, Node: keytest.ID("a"), TrustDomain: keytest.TrustDomain})
	if !errors.Is(err, keymgr.ErrCorrupt) {
		t.Errorf("generation %d in file wg-1.key: error %v, want ErrCorrupt", key.Generation, err)
	}
}

func parse(t *testing.T, s keymgr.Signed) keymgr.Statement {
	t.Helper()
	stmt, err := keymgr.ParseStatement(s.Payload)
	if err != nil {
		t.Fatal(err)
	}
	return stmt
}

func TestSequenceGrowsAndChains(t *testing.T) {
	b := newBed(t)
	n := b.node("10.244.1.0/24")
	b.Certify(n)
	before := n.Sign()
	first := parse(t, before)
	if want := uint64(b.Clock.Now().UnixMilli()); first.Seq != want || first.PrevSeq != 0 || first.PrevHash != (keymgr.Hash{}) {
		t.Errorf("first statement is %d after %d, want %d after nothing", first.Seq, first.PrevSeq, want)
	}
	last := first.Seq
	for name, step := range map[string]func(){
		"same millisecond": func() {},
		"clock set back":   func() { b.Clock.Add(-time.Minute) },
		"restart":          func() { n.Identity = b.open() },
	} {
		step()
		signed := n.Sign()
		stmt := parse(t, signed)
		if stmt.Seq != last+1 || stmt.PrevSeq != last || stmt.PrevHash != keymgr.HashPayload(before.Payload) {
			t.Errorf("%s: %d after %d (%s), want %d after %d (%s)", name,
				stmt.Seq, stmt.PrevSeq, stmt.PrevHash, last+1, last, keymgr.HashPayload(before.Payload))
		}
		before, last = signed, stmt.Seq
	}
	b.Clock.Add(2 * time.Hour)
	if stmt := parse(t, n.Sign()); stmt.Seq != uint64(b.Clock.Now().UnixMilli()) {
		t.Errorf("sequence is %d, want the clock's %d again", stmt.Seq, b.Clock.Now().UnixMilli())
	}
}

// TestSequenceAfterAClockThatWasAhead: readers refuse numbers from the future, so that a node
// whose clock was ahead begins again at the clock. If it is the present clock that is wrong, the
// next statement follows as soon as the clock is right.
func TestSequenceAfterAClockThatWasAhead(t *testing.T) {
	b := newBed(t)
	n := b.node("10.244.1.0/24")
	b.Certify(n)
	high := parse(t, n.Sign()).Seq
	b.Clock.Add(time.Hour)
	b.Certify(n) // whose certificate begins then
	b.Clock.Add(-time.Hour)
	if why := n.Identity.NeedsStatement(n.Input); why != identity.NeedCertificate {
		t.Errorf("needs a statement because of %q", why)
	}
	if s := parse(t, n.Sign()); s.Seq != high+1 {
		t.Errorf("clock behind the certificate: sequence %d after %d, want it to grow", s.Seq, high)
	}
	b.Clock.Add(2 * time.Hour)
	high = parse(t, n.Sign()).Seq
	b.Clock.Add(-time.Hour)
	if why := n.Identity.NeedsStatement(n.Input); why != identity.NeedDue {
		t.Errorf("number from the future: needs a statement because of %q", why)
	}
	low := parse(t, n.Sign())
	if want := uint64(b.Clock.Now().UnixMilli()); low.Seq != want || low.PrevSeq != high {
		t.Errorf("sequence %d after %d, want %d after %d", low.Seq, low.PrevSeq, want, high)
	}
	if why := n.Identity.NeedsStatement(n.Input); why != "" {
		t.Errorf("at rest: needs a statement because of %q", why)
	}
	b.Clock.Add(time.Hour)
	if why := n.Identity.NeedsStatement(n.Input); why != identity.NeedDue {
		t.Errorf("clock right again: needs a statement because of %q", why)
	}
	if s := parse(t, n.Sign()); s.Seq <= high {
		t.Errorf("clock right again: sequence %d, want more than %d", s.Seq, high)
	}
}

func TestSignRefuses(t *testing.T) {
	b := newBed(t)
	n := b.node("10.244.1.0/24")
	if _, err := n.Identity.Sign(n.Input); !errors.Is(err, identity.ErrNoCertificate) {
		t.Errorf("without a certificate: %v, want ErrNoCertificate", err)
	}
	b.Certify(n)
	n.Sign()
	before, _ := n.Identity.Last()

	in := n.Input
	in.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}
	if _, err := n.Identity.Sign(in); !errors.Is(err, keymgr.ErrPodCIDR) {
		t.Errorf("pod CIDR outside the certificate: %v, want ErrPodCIDR", err)
	}
	in = n.Input
	in.Keys = nil
	if _, err := n.Identity.Sign(in); !errors.Is(err, keymgr.ErrFormat) {
		t.Errorf("without a key: %v, want ErrFormat", err)
	}
	if after, _ := n.Identity.Last(); !after.Equal(before) {
		t.Error("a refused statement replaced the last one")
	}
}

// If the statement cannot be stored, nobody gets to see it.
func TestSignStoresFirst(t *testing.T) {
	b := newBed(t)
	n := b.node("10.244.1.0/24")
	b.Certify(n)
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	if s, err := n.Identity.Sign(n.Input); err == nil || s.Payload != nil {
		t.Errorf("Sign without a directory gave %q and error %v", s.Payload, err)
	}
	if _, ok := n.Identity.Last(); ok {
		t.Error("the statement that was not stored is the last one")
	}
}

func TestKeyMadeBeforeClockWasSetBack(t *testing.T) {
	s := newScene(t)
	s.a.Input.Keys[0].Created = s.Clock.Now().Add(5 * time.Hour)
	mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)
}

func TestNeedsStatement(t *testing.T) {
	b := newBed(t)
	n := b.node("10.244.1.0/24", "fd00:1::/64")
	check := func(want string, change func(*identity.StatementInput)) {
		t.Helper()
		in := n.Input
		if change != nil {
			change(&in)
		}
		if got := n.Identity.NeedsStatement(in); got != want {
			t.Errorf("NeedsStatement is %q, want %q", got, want)
		}
	}
	check(identity.NeedFirst, nil)
	b.Certify(n)
	n.Sign()
	check("", nil)
	n.Identity = b.open()
	check("", nil)
	next := keytest.WGKey(t, "a", 2, b.Clock.Now())
	check(identity.NeedKeys, func(in *identity.StatementInput) { in.Keys = append(slices.Clone(in.Keys), next) })
	check(identity.NeedKeys, func(in *identity.StatementInput) { in.Keys = []identity.WGKey{next} })
	check(identity.NeedKeys, func(in *identity.StatementInput) { in.RevokedGens = []uint64{9} })
	check(identity.NeedKeys, func(in *identity.StatementInput) { in.BasePort++ })
	check(identity.NeedPodCIDRs, func(in *identity.StatementInput) { in.PodCIDRs = in.PodCIDRs[:1] })
	check(identity.NeedEndpoints, func(in *identity.StatementInput) { in.Endpoints = []netip.Addr{netip.MustParseAddr("10.9.9.9")} })
	check(identity.NeedPSK, func(in *identity.StatementInput) { in.PSK = keymgr.PSKPreferred })
	check(identity.NeedPSK, func(in *identity.StatementInput) { in.PSKPort = 7000 })
	check("", func(in *identity.StatementInput) { in.PSK = keymgr.PSKOff })

	b.Clock.Add(35 * time.Hour)
	check("", nil)
	b.Clock.Add(16 * time.Hour)
	check(identity.NeedDue, nil)
	n.Sign()
	check("", nil)
	b.Certify(n)
	check(identity.NeedCertificate, nil)
	n.Sign()
	check("", nil)
}

// When the certificate is about to end, a new statement would not last longer:
// nodes whose signer is away must not publish over and over.
func TestNoStatementThatEndsWithTheLastOne(t *testing.T) {
	b := newBed(t)
	n := b.node("10.244.1.0/24")
	b.Certify(n)
	cert, _ := n.Identity.Certificate()
	published := 0
	for b.Clock.Now().Before(cert.NotAfter) {
		if n.Identity.NeedsStatement(n.Input) != "" {
			n.Sign()
			published++
		}
		b.Clock.Add(time.Minute)
	}
	if published < 3 || published > 6 {
		t.Errorf("%d statements in the life of a certificate, want 3 to 6", published)
	}
	if stmt := parse(t, func() keymgr.Signed { s, _ := n.Identity.Last(); return s }()); !stmt.NotAfter.Equal(cert.NotAfter) {
		t.Errorf("the last statement ends %v, want %v", stmt.NotAfter, cert.NotAfter)
	}
}

func TestKeysOfGenerations(t *testing.T) {
	w := newScene(t).a.Identity.WGKeys()
	for range 3 {
		if _, err := w.Create(); err != nil {
			t.Fatal(err)
		}
	}
	all, gens := w.All(), w.Generations()
	if len(gens) != 3 || gens[2] != all[2].Generation || w.Publics()[2] != all[2].Public {
		t.Errorf("generations %v of %v", gens, all)
	}
	if got := w.Only([]uint64{gens[2], gens[0], 7}); len(got) != 2 || got[0] != all[0] || got[1] != all[2] {
		t.Errorf("first and last: %v of %v", got, all)
	}
}

func TestCertificateServesUntilItEnds(t *testing.T) {
	s := newScene(t)
	id, roots := s.a.Identity, s.Authority.Bundle()
	if !id.Serves(roots, s.a.Live.PodCIDRs) || id.Serves(roots, s.b.Live.PodCIDRs) || id.Serves(keytest.NewCluster(t).Authority.Bundle(), nil) {
		t.Error("it serves for its own ranges, and readers with its root, alone")
	}
	s.Clock.Add(id.RenewAt().Sub(s.Clock.Now()))
	if !id.Serves(roots, nil) {
		t.Error("it does not serve any more when it is due")
	}
	s.Clock.Add(7 * 24 * time.Hour)
	if id.Serves(roots, nil) || s.Identity(keytest.ID("new"), t.TempDir()).Serves(roots, nil) {
		t.Error("one that has ended serves, or none at all")
	}
}

// TestKeyRemembersWhatItAnswers: also when it is read from disk, where the files of
// earlier versions say nothing of it.
func TestKeyRemembersWhatItAnswers(t *testing.T) {
	c, dir := keytest.NewCluster(t), t.TempDir()
	w := c.Identity(keytest.ID("a"), dir).WGKeys()
	old, err := w.Create()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, fmt.Sprintf("wg-%d.key", old.Generation))
	if data, err := os.ReadFile(file); err != nil || strings.Contains(string(data), "Asked") {
		t.Errorf("a key that answers nothing: %s, %v", data, err)
	}
	want := identity.Asked{Rotation: 7, Compromised: 253_402_300_799}
	if _, err := w.CreateFor(want); err != nil {
		t.Fatal(err)
	}
	for _, keys := range [][]identity.WGKey{w.All(), c.Identity(keytest.ID("a"), dir).WGKeys().All()} {
		if len(keys) != 2 || keys[0].Asked != (identity.Asked{}) || keys[1].Asked != want {
			t.Errorf("keys answer %+v", keys)
		}
	}
}
