// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr_test

import (
	"crypto/elliptic"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/keytest"
	"github.com/sealane/sealane/keymgr/markstore"
)

func TestReplayOfOldStatement(t *testing.T) {
	s := newScene(t)
	old := s.a.Sign()
	s.Clock.Add(time.Minute)
	mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)
	_, err := s.verifier.Verify(old, s.a.Live)
	wantReason(t, err, keymgr.ErrReplay)
}

// TestRemembered: who is not gone is remembered with what made it accepted.
func TestRemembered(t *testing.T) {
	s := newScene(t) // where b is accepted already
	names := func() (all []string) {
		for _, r := range s.verifier.Remembered() {
			all = append(all, r.ID.Name)
		}
		return all
	}
	signed := s.a.Sign()
	mustVerify(t, s.verifier, signed, s.a.Live)
	if got := names(); !slices.Equal(got, []string{"a", "b"}) {
		t.Fatalf("remembered %v", got)
	}
	if a := s.verifier.Remembered()[0]; !a.Statement.Equal(signed) || !slices.Equal(a.Live.Addresses, s.a.Live.Addresses) {
		t.Errorf("remembered of a: %+v", a)
	}
	if err := s.verifier.Forget(s.a.Live.ID); err != nil {
		t.Fatal(err)
	}
	if got := names(); !slices.Equal(got, []string{"b"}) {
		t.Errorf("a is gone, remembered %v", got)
	}
}

func TestSameStatementAgainIsNoOp(t *testing.T) {
	s := newScene(t)
	signed := s.a.Sign()
	first := mustVerify(t, s.verifier, signed, s.a.Live)
	s.Clock.Add(time.Hour)
	again := mustVerify(t, s.verifier, signed, s.a.Live)
	if first.Seq != again.Seq || !first.Keys[0].Equal(again.Keys[0]) || len(again.Warnings) > 0 {
		t.Errorf("the same statement gave %+v, then %+v", first, again)
	}
}

func TestForkIsRefused(t *testing.T) {
	s := newScene(t)
	signed := s.a.Sign()
	mustVerify(t, s.verifier, signed, s.a.Live)
	stmt, err := keymgr.ParseStatement(signed.Payload)
	if err != nil {
		t.Fatal(err)
	}
	stmt.PSKPort = 7000
	payload, err := stmt.Encode()
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.verifier.Verify(s.a.Forge(payload), s.a.Live)
	wantReason(t, err, keymgr.ErrFork)
	mustVerify(t, s.verifier, signed, s.a.Live)
}

// malleate returns the other valid form (r, n-s) of an ECDSA signature.
func malleate(t *testing.T, signature []byte) []byte {
	t.Helper()
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(signature, &sig); err != nil {
		t.Fatal(err)
	}
	sig.S.Sub(elliptic.P256().Params().N, sig.S)
	out, err := asn1.Marshal(sig)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A second valid signature over the same payload, or over the certificate, is the
// same statement of the same certificate: no fork, no new identity, no disk write.
func TestMalleatedSignatureIsTheSameStatement(t *testing.T) {
	c := keytest.NewCluster(t)
	store := &countingMarks{MarkStore: markstore.New(t.TempDir())}
	cfg := c.VerifierConfig("self")
	cfg.Marks = store
	v, a := c.Open(cfg), c.Node("a", "10.244.1.0/24")
	signed := a.Sign()
	first := mustVerify(t, v, signed, a.Live)

	twin := signed
	twin.Signature = malleate(t, signed.Signature)
	twin.Chain = [][]byte{malleateCertificate(t, signed.Chain[0]), signed.Chain[1]}
	if twin.Equal(signed) {
		t.Fatal("the malleated statement is the same blob")
	}
	again := mustVerify(t, v, twin, a.Live)
	if first.Certificate != again.Certificate {
		t.Errorf("certificate was %+v, is now %+v", first.Certificate, again.Certificate)
	}
	if store.saves != 1 {
		t.Errorf("%d writes of marks, want 1", store.saves)
	}
}

// malleateCertificate replaces the certificate's signature by its other valid form.
func malleateCertificate(t *testing.T, der []byte) []byte {
	t.Helper()
	var cert struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &cert); err != nil {
		t.Fatal(err)
	}
	sig := malleate(t, cert.Signature.Bytes)
	cert.Signature = asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}
	out, err := asn1.Marshal(cert)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestHistoryWarning(t *testing.T) {
	s := newScene(t)
	mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)
	if p := mustVerify(t, s.verifier, s.a.Sign(), s.a.Live); len(p.Warnings) > 0 {
		t.Errorf("consecutive statements warn: %v", p.Warnings)
	}
	s.a.Sign() // withheld: a gap is no reason to warn
	if p := mustVerify(t, s.verifier, s.a.Sign(), s.a.Live); len(p.Warnings) > 0 {
		t.Errorf("a statement after a gap warns: %v", p.Warnings)
	}
	for name, change := range map[string]func(*keymgr.Statement){
		"other hash":        func(st *keymgr.Statement) { st.PrevHash[0] ^= 1 },
		"older predecessor": func(st *keymgr.Statement) { st.PrevSeq-- },
		"no predecessor":    func(st *keymgr.Statement) { st.PrevSeq, st.PrevHash = 0, keymgr.Hash{} },
	} {
		n := newScene(t)
		mustVerify(t, n.verifier, n.a.Sign(), n.a.Live)
		p := mustVerify(t, n.verifier, n.a.Edit(change), n.a.Live)
		if len(p.Warnings) != 1 || p.Warnings[0].Code != keymgr.WarnHistory {
			t.Errorf("%s: warnings are %v, want one of the history", name, p.Warnings)
		}
	}
}

func TestGenerationsNeverGoBack(t *testing.T) {
	s := newScene(t)
	k := func(gen uint64) identity.WGKey { return keytest.WGKey(t, "a", gen, s.Clock.Now()) }
	publish := func(keys ...identity.WGKey) (keymgr.Peer, error) {
		s.a.Input.Keys = keys
		return s.verifier.Verify(s.a.Sign(), s.a.Live)
	}
	for _, keys := range [][]identity.WGKey{{k(5)}, {k(5), k(6)}, {k(5), k(6)}, {k(6)}} {
		p, err := publish(keys...)
		if err != nil || len(p.Keys) != len(keys) {
			t.Fatalf("rotation step %d of %d: %v, %v", keys[0].Generation, len(keys), p.Keys, err)
		}
	}
	for name, keys := range map[string][]identity.WGKey{
		"old":                    {k(5)},
		"old beside new":         {k(5), k(6)},
		"other key, same number": {func() identity.WGKey { o := keytest.WGKey(t, "else", 6, s.Clock.Now()); return o }()},
	} {
		_, err := publish(keys...)
		if !errors.Is(err, keymgr.ErrGeneration) {
			t.Errorf("%s: error %v, want ErrGeneration", name, err)
		}
	}
	if p, err := publish(k(7)); err != nil || p.Keys[0].Generation() != 7 {
		t.Errorf("next generation: %v, %v", p.Keys, err)
	}
}

// A key that was announced is not taken back, only followed by the next.
func TestNewerGenerationStays(t *testing.T) {
	s := newScene(t)
	old := s.a.Input.Keys
	s.a.Input.Keys = append(slices.Clone(old), keytest.WGKey(t, "a", 2, s.Clock.Now()))
	mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)
	s.a.Input.Keys = old
	_, err := s.verifier.Verify(s.a.Sign(), s.a.Live)
	wantReason(t, err, keymgr.ErrGeneration)
}

func TestRevokedGenerationIsGone(t *testing.T) {
	s := newScene(t)
	mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)
	s.a.Input.Keys = []identity.WGKey{keytest.WGKey(t, "a", 2, s.Clock.Now())}
	s.a.Input.RevokedGens = []uint64{1}
	p := mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)
	if !slices.Equal(p.RevokedGens, []uint64{1}) || len(p.Keys) != 1 || p.Keys[0].Generation() != 2 {
		t.Errorf("peer has keys %v and revoked %v, want 2 and 1", p.Keys, p.RevokedGens)
	}
}

// The first holder keeps a key, whoever comes later; Forget frees it.
func TestFirstHolderKeepsKey(t *testing.T) {
	s := newScene(t)
	steal := func() error {
		s.a.Input.Keys = s.b.Input.Keys
		_, err := s.verifier.Verify(s.a.Sign(), s.a.Live)
		return err
	}
	wantReason(t, steal(), keymgr.ErrDuplicateKey)
	mustVerify(t, s.verifier, s.b.Sign(), s.b.Live)
	if err := s.verifier.Forget(s.b.Live.ID); err != nil {
		t.Fatal(err)
	}
	if err := steal(); err != nil {
		t.Errorf("after Forget: %v", err)
	}
	_, err := s.verifier.Verify(s.b.Sign(), s.b.Live)
	wantReason(t, err, keymgr.ErrDuplicateKey)
}

// A node that retires a key for good or gives up a pod range frees it for others.
func TestClaimsFollowStatement(t *testing.T) {
	s := newScene(t)
	old := s.b.Input.Keys
	for gen := range uint64(2) { // the second one takes the device of the old one
		s.b.Input.Keys = []identity.WGKey{keytest.WGKey(t, "b", 2+gen, s.Clock.Now())}
		s.b.Input.PodCIDRs = nil
		mustVerify(t, s.verifier, s.b.Sign(), s.b.Live)
	}
	n := s.Node("n", "10.244.2.0/24")
	n.Input.Keys = old
	mustVerify(t, s.verifier, n.Sign(), n.Live)
}

func TestNodeMadeAnewStartsFresh(t *testing.T) {
	s := newScene(t)
	mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)
	s.Clock.Add(-time.Minute) // its sequence numbers start below those of the old one

	next := s.a.Live
	next.ID.UID = "second-life"
	n := &keytest.Node{Live: next, Identity: s.Identity(next.ID, t.TempDir())}
	s.Certify(n)
	n.Input = s.a.Input
	signed, err := n.Identity.Sign(n.Input)
	if err != nil {
		t.Fatal(err)
	}
	p := mustVerify(t, s.verifier, signed, next)
	if p.ID != next.ID {
		t.Errorf("peer is %v, want %v", p.ID, next.ID)
	}
	_, err = s.verifier.Verify(s.a.Sign(), next)
	wantReason(t, err, keymgr.ErrIdentity)
}

func TestExpiryAndGrace(t *testing.T) {
	s := newScene(t)
	signed := s.a.Sign()
	mustVerify(t, s.verifier, signed, s.a.Live)

	s.Clock.Add(keymgr.StatementLifetime + keymgr.ClockSkew)
	if p := mustVerify(t, s.verifier, signed, s.a.Live); p.Grace {
		t.Error("grace within the clock skew")
	}
	s.Clock.Add(time.Second)
	p := mustVerify(t, s.verifier, signed, s.a.Live)
	if !p.Grace || len(p.Keys) != 1 || !p.Keys[0].Valid() {
		t.Errorf("after its end: grace %v with keys %v, want true with the key", p.Grace, p.Keys)
	}
	// What was not accepted in time is not accepted now.
	_, err := s.Verifier("other").Verify(signed, s.a.Live)
	wantReason(t, err, keymgr.ErrExpired)

	s.Clock.Add(keymgr.DefaultGrace)
	_, err = s.verifier.Verify(signed, s.a.Live)
	wantReason(t, err, keymgr.ErrExpired)
}

func TestGraceEndsAtUntil(t *testing.T) {
	s := newScene(t)
	signed := s.a.Sign()
	p := mustVerify(t, s.verifier, signed, s.a.Live)
	s.Clock.Add(p.Until.Sub(s.Clock.Now()))
	mustVerify(t, s.verifier, signed, s.a.Live)
	s.Clock.Add(time.Nanosecond)
	_, err := s.verifier.Verify(signed, s.a.Live)
	wantReason(t, err, keymgr.ErrExpired)
}

func TestStrictGrace(t *testing.T) {
	c := keytest.NewCluster(t)
	cfg := c.VerifierConfig("self")
	cfg.Grace = 0
	v, a := c.Open(cfg), c.Node("a")
	signed := a.Sign()
	mustVerify(t, v, signed, a.Live)
	c.Clock.Add(keymgr.StatementLifetime + keymgr.ClockSkew + time.Second)
	_, err := v.Verify(signed, a.Live)
	wantReason(t, err, keymgr.ErrExpired)
}

// The certificate ends before the statement would, at a node whose signer is away.
func TestGraceOfCertificate(t *testing.T) {
	s := newScene(t)
	cert, _ := s.a.Identity.Certificate()
	s.Clock.Add(cert.NotAfter.Sub(s.Clock.Now()) - time.Hour)
	signed := s.a.Sign()
	if p := mustVerify(t, s.verifier, signed, s.a.Live); !p.NotAfter.Equal(cert.NotAfter) {
		t.Errorf("statement ends %v, want %v with the certificate", p.NotAfter, cert.NotAfter)
	}
	s.Clock.Add(2 * time.Hour)
	if p := mustVerify(t, s.verifier, signed, s.a.Live); !p.Grace {
		t.Error("no grace after the certificate's end")
	}
	if _, err := s.a.Identity.Sign(s.a.Input); !errors.Is(err, keymgr.ErrExpired) {
		t.Errorf("Sign with an expired certificate: %v, want ErrExpired", err)
	}
	// A statement forged with the expired certificate's key is new, hence refused.
	stmt, _ := keymgr.ParseStatement(signed.Payload)
	stmt.PrevSeq, stmt.Seq = stmt.Seq, stmt.Seq+1
	payload, _ := stmt.Encode()
	_, err := s.verifier.Verify(s.a.Forge(payload), s.a.Live)
	wantReason(t, err, keymgr.ErrExpired)
}

func TestClockSkew(t *testing.T) {
	for _, skew := range []time.Duration{-keymgr.ClockSkew, -time.Minute, time.Minute, keymgr.ClockSkew} {
		t.Run(skew.String(), func(t *testing.T) {
			s := newScene(t)
			signed := s.a.Sign()
			s.Clock.Add(skew)
			mustVerify(t, s.verifier, signed, s.a.Live)
		})
	}
	s := newScene(t)
	signed := s.a.Sign()
	s.Clock.Add(-keymgr.ClockSkew - time.Second)
	_, err := s.verifier.Verify(signed, s.a.Live)
	wantReason(t, err, keymgr.ErrNotYetValid)
}

// An announced key joins when its time has come, without a new statement.
func TestAnnouncedKeyJoinsInTime(t *testing.T) {
	s := newScene(t)
	later := s.Clock.Now().Add(time.Hour)
	signed := s.a.Edit(func(st *keymgr.Statement) {
		k := keytest.WGKey(t, "a", 2, later)
		st.Keys = append(st.Keys, keymgr.StatementKey{
			Generation: 2, Key: k.Public, NotBefore: later, NotAfter: st.NotAfter, Ports: keymgr.Ports{1, 2},
		})
	})
	for _, want := range []int{1, 2} {
		if p := mustVerify(t, s.verifier, signed, s.a.Live); len(p.Keys) != want {
			t.Errorf("at %v: keys %v, want %d", s.Clock.Now(), p.Keys, want)
		}
		s.Clock.Add(time.Hour)
	}
}

// An address that leaves the Node later does not end a running lane.
func TestEndpointThatLeftWarns(t *testing.T) {
	s := newScene(t)
	signed := s.a.Sign()
	mustVerify(t, s.verifier, signed, s.a.Live)
	live := s.a.Live
	live.Addresses = []netip.Addr{netip.MustParseAddr("10.9.9.9")}
	p := mustVerify(t, s.verifier, signed, live)
	if len(p.Warnings) != 1 || p.Warnings[0].Code != keymgr.WarnEndpoint {
		t.Errorf("warnings are %v, want one about the endpoint", p.Warnings)
	}
}

func TestRenewedCertificateSameStatement(t *testing.T) {
	s := newScene(t)
	signed := s.a.Sign()
	first := mustVerify(t, s.verifier, signed, s.a.Live)
	s.Certify(s.a)
	renewed := s.a.Forge(signed.Payload)
	again := mustVerify(t, s.verifier, renewed, s.a.Live)
	if first.Certificate.Serial == again.Certificate.Serial || first.Certificate.SPKI == again.Certificate.SPKI {
		t.Errorf("certificates %+v and %+v, want another serial and another key", first.Certificate, again.Certificate)
	}
}

// Whatever the order in which good statements arrive, and however often, each node
// ends with its newest one.
func TestOrderDoesNotMatter(t *testing.T) {
	c := keytest.NewCluster(t)
	type arrival struct {
		node   *keytest.Node
		signed keymgr.Signed
	}
	var all []arrival
	newest := map[keymgr.NodeID]uint64{}
	for i := range 5 {
		n := c.Node(fmt.Sprintf("node%d", i), fmt.Sprintf("10.244.%d.0/24", i), fmt.Sprintf("fd00:%x::/64", i))
		for gen := range uint64(3) {
			n.Input.Keys = []identity.WGKey{
				keytest.WGKey(t, n.Live.ID.Name, gen+1, c.Clock.Now()), keytest.WGKey(t, n.Live.ID.Name, gen+2, c.Clock.Now()),
			}
			s := n.Sign()
			all = append(all, arrival{n, s}, arrival{n, s})
			stmt, err := keymgr.ParseStatement(s.Payload)
			if err != nil {
				t.Fatal(err)
			}
			newest[n.Live.ID] = stmt.Seq
		}
	}
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		v := c.Verifier("self")
		for _, a := range all {
			if _, err := v.Verify(a.signed, a.node.Live); err != nil && !errors.Is(err, keymgr.ErrReplay) {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		peers, err := v.Restore()
		if err != nil || len(peers) != len(newest) {
			t.Fatalf("seed %d: %d peers and error %v, want %d", seed, len(peers), err, len(newest))
		}
		for _, p := range peers {
			if p.Seq != newest[p.ID] || len(p.Keys) != 2 {
				t.Errorf("seed %d: node %v is at %d with %v, want %d", seed, p.ID, p.Seq, p.Keys, newest[p.ID])
			}
		}
	}
}
