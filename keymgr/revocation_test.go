// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr_test

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/ca/memorystore"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/keytest"
	"github.com/sealane/sealane/keymgr/markstore"
)

const goodList = `{"type":"revocations/v1","trustDomain":"6f1c9c0e-7d1f-4a53-9c55-3d1f3f0a5a11","number":7,"issuedAt":"2026-01-02T03:04:05Z",` +
	`"nodes":[{"name":"a","uid":"u-1","reason":"keyCompromise","at":"2026-01-02T03:04:05Z","blocked":true,` +
	`"keys":["5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e"],"serials":[{"issuer":"CN=x","serial":"a1"}],"expires":"2026-01-22T03:04:05Z"}]}`

// list returns a list of the cluster that revokes nodes.
func list(number uint64, nodes ...keymgr.RevokedNode) keymgr.RevocationList {
	return keymgr.RevocationList{
		Type: keymgr.RevocationsType, TrustDomain: keytest.TrustDomain, Number: number,
		IssuedAt: keytest.NewClock().Now(), Nodes: nodes,
	}
}

// blocked is an entry that refuses a node whatever its key.
func blocked(n *keytest.Node) keymgr.RevokedNode {
	now := keytest.NewClock().Now()
	return keymgr.RevokedNode{
		Name: n.Live.ID.Name, UID: n.Live.ID.UID, Reason: keymgr.ReasonKeyCompromise, At: now, Blocked: true, Expires: now.Add(14 * 24 * time.Hour),
	}
}

// readmitted is an entry that refuses the key that the node has now.
func readmitted(t *testing.T, n *keytest.Node) keymgr.RevokedNode {
	t.Helper()
	e := blocked(n)
	e.Blocked = false
	hash, err := n.Identity.KeyHash()
	if err != nil {
		t.Fatal(err)
	}
	e.Keys = []keymgr.Hash{hash}
	return e
}

func (s *scene) sign(t *testing.T, l keymgr.RevocationList) keymgr.Signed {
	t.Helper()
	signed, err := s.Authority.SignRevocations(l)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func (s *scene) revoke(t *testing.T, l keymgr.RevocationList) {
	t.Helper()
	if err := s.verifier.SetRevocations(s.sign(t, l)); err != nil {
		t.Fatal(err)
	}
}

func TestRevokedNodeIsRefused(t *testing.T) {
	s := newScene(t)
	signed := s.a.Sign()
	info := mustVerify(t, s.verifier, signed, s.a.Live).Certificate
	serial := []keymgr.CertificateSerial{{Issuer: info.Issuer, Serial: info.Serial}}
	expired := readmitted(t, s.a)
	expired.Expires = s.Clock.Now().Add(-time.Second)
	for i, tc := range []struct {
		name  string
		entry func(e *keymgr.RevokedNode)
		want  bool
	}{
		{"blocked", func(e *keymgr.RevokedNode) { e.Blocked = true }, true},
		{"blocked for good", func(e *keymgr.RevokedNode) { e.Blocked, e.Expires = true, time.Time{} }, true},
		{"key", func(e *keymgr.RevokedNode) { e.Keys = expired.Keys }, true},
		{"key under another node", func(e *keymgr.RevokedNode) { e.Name, e.UID, e.Keys = "c", "u-c", expired.Keys }, true},
		{"serial number", func(e *keymgr.RevokedNode) { e.Serials = serial }, true},
		{"issued before", func(e *keymgr.RevokedNode) { e.Before = info.NotBefore }, true},
		{"another key", func(e *keymgr.RevokedNode) { e.Keys = []keymgr.Hash{{1}} }, false},
		{"another issuer's number", func(e *keymgr.RevokedNode) {
			e.Serials = []keymgr.CertificateSerial{{Issuer: "CN=other", Serial: info.Serial}}
		}, false},
		{"issued after", func(e *keymgr.RevokedNode) { e.Before = info.NotBefore.Add(-time.Second) }, false},
		{"another node", func(e *keymgr.RevokedNode) { e.Name, e.UID, e.Blocked = "a", "u-of-another-life", true }, false},
		{"issued before, another node", func(e *keymgr.RevokedNode) { e.UID, e.Before = "u-2", info.NotBefore }, false},
		{"expired", func(e *keymgr.RevokedNode) { e.Keys, e.Serials, e.Expires = expired.Keys, serial, expired.Expires }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := blocked(s.a)
			e.Blocked = false
			tc.entry(&e)
			s.revoke(t, list(uint64(i+1), e))
			_, err := s.verifier.Verify(signed, s.a.Live)
			if tc.want {
				wantReason(t, err, keymgr.ErrRevoked)
			} else if err != nil {
				t.Errorf("Verify: %v", err)
			}
			if reason, ok := s.verifier.Revoked(s.a.Live.ID, info); ok != tc.want || ok && reason != keymgr.ReasonKeyCompromise {
				t.Errorf("Revoked gives %q, %t; want %t", reason, ok, tc.want)
			}
			mustVerify(t, s.verifier, s.b.Sign(), s.b.Live)
		})
	}
}

// TestListsThatAreNotAccepted leave the one before in force.
func TestListsThatAreNotAccepted(t *testing.T) {
	s := newScene(t)
	other := keytest.NewCluster(t)
	fresh := func(change func(l *keymgr.RevocationList)) keymgr.RevocationList {
		l := list(9)
		change(&l)
		return l
	}
	foreign := list(9)
	foreign.TrustDomain = "another-cluster"
	forged, err := keymgr.SignRevocations(list(9), keymgr.Issuer{Key: mustKey(t, s.a), Chain: s.a.Sign().Chain})
	if err != nil {
		t.Fatal(err)
	}
	stolen := forged
	stolen.Chain = s.sign(t, list(9)).Chain
	broken := s.sign(t, list(9))
	broken.Payload = bytes.Replace(broken.Payload, []byte(`"number":9`), []byte(`"number":8`), 1)
	for name, tc := range map[string]struct {
		signed keymgr.Signed
		want   error
	}{
		"older":                {s.sign(t, list(4)), keymgr.ErrReplay},
		"same number":          {s.sign(t, list(5)), keymgr.ErrFork},
		"another cluster's CA": {mustSign(t, other, list(9)), keymgr.ErrChain},
		"a node as issuer":     {forged, keymgr.ErrCertificate},
		"a node's signature":   {stolen, keymgr.ErrSignature},
		"changed":              {broken, keymgr.ErrSignature},
		"another domain":       {s.sign(t, foreign), keymgr.ErrTrustDomain},
		"nothing":              {keymgr.Signed{}, keymgr.ErrFormat},
		"endless signature":    {keymgr.Signed{Signature: make([]byte, 2000)}, keymgr.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			s.verifier = s.Verifier("self")
			s.revoke(t, list(5, blocked(s.a)))
			wantReason(t, s.verifier.SetRevocations(tc.signed), tc.want)
			_, err := s.verifier.Verify(s.a.Sign(), s.a.Live)
			wantReason(t, err, keymgr.ErrRevoked)
			if l, _ := s.verifier.Revocations(); l.Number != 5 {
				t.Errorf("list %d is in force", l.Number)
			}
		})
	}
	if _, err := s.Authority.SignRevocations(fresh(func(l *keymgr.RevocationList) { l.Number = 0 })); err == nil {
		t.Error("a list that no reader takes was signed")
	}
	bare, err := keymgr.NewVerifier(s.VerifierConfig("self"))
	if err != nil {
		t.Fatal(err)
	}
	wantReason(t, bare.SetRevocations(s.sign(t, list(1))), keymgr.ErrNoRoots)
}

// TestIssuerOfAnotherClusterUnderOneRoot cannot revoke here.
func TestIssuerOfAnotherClusterUnderOneRoot(t *testing.T) {
	s := newScene(t)
	store := memorystore.New()
	elsewhere, err := ca.Open(t.Context(), ca.Config{TrustDomain: "elsewhere", Store: store, Clock: s.Clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.verifier.SetRoots(elsewhere.Bundle()); err != nil {
		t.Fatal(err)
	}
	signed, err := elsewhere.SignRevocations(list(1, blocked(s.a)))
	if err != nil {
		t.Fatal(err)
	}
	wantReason(t, s.verifier.SetRevocations(signed), keymgr.ErrTrustDomain)
}

// TestClockBehindLearnsWhoIsRevokedWhenItIsRight: the same list, which that reader is shown in
// each pass, takes effect as soon as the clock is set, though it was refused before.
func TestClockBehindLearnsWhoIsRevokedWhenItIsRight(t *testing.T) {
	s := newScene(t)
	signed := s.sign(t, list(1, blocked(s.a)))
	s.Clock.Add(-30 * 24 * time.Hour)
	wantReason(t, s.verifier.SetRevocations(signed), keymgr.ErrClock)
	s.Clock.Add(30*24*time.Hour - keymgr.ClockSkew)
	if err := s.verifier.SetRevocations(signed); err != nil {
		t.Error(err)
	}
}

// TestRevocationsSurviveRestart: neither a restart nor an older list that is put
// back un-revokes a node.
func TestRevocationsSurviveRestart(t *testing.T) {
	c := keytest.NewCluster(t)
	s := &scene{Cluster: c, a: c.Node("a", "10.244.1.0/24")}
	cfg := c.VerifierConfig("self")
	marks := markstore.New(filepath.Join(t.TempDir(), "peers"))
	cfg.Marks, cfg.Revocations = marks, marks
	s.verifier = c.Open(cfg)
	mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)
	before := s.sign(t, list(1))
	if err := s.verifier.SetRevocations(before); err != nil {
		t.Fatal(err)
	}
	s.revoke(t, list(2, blocked(s.a)))

	s.verifier = c.Open(cfg)
	wantReason(t, s.verifier.SetRevocations(before), keymgr.ErrReplay)
	_, err := s.verifier.Verify(s.a.Sign(), s.a.Live)
	wantReason(t, err, keymgr.ErrRevoked)
	if peers, err := s.verifier.Restore(); len(peers) != 0 || !errors.Is(err, keymgr.ErrRevoked) {
		t.Errorf("restored %v, %v; want nobody", peers, err)
	}
	if records, err := marks.Load(); len(records) != 1 || err != nil {
		t.Errorf("the list is taken for a mark: %v, %v", records, err)
	}
}

func TestCorruptStoredListIsNotIgnored(t *testing.T) {
	dir := t.TempDir()
	cfg := keytest.NewCluster(t).VerifierConfig("self")
	cfg.Revocations = markstore.New(dir)
	path := filepath.Join(dir, "revocations.list")
	if err := os.WriteFile(path, []byte(`{"payload":"e30="}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keymgr.NewVerifier(cfg); !errors.Is(err, keymgr.ErrCorrupt) || !strings.Contains(err.Error(), path) {
		t.Errorf("got error %v, want one that names %s", err, path)
	}
}

// failingStore cannot save.
// failingStore is a disk that may be full.
type failingStore struct {
	full  bool
	saved int
}

func (*failingStore) LoadRevocations() (keymgr.Signed, error) { return keymgr.Signed{}, nil }

func (f *failingStore) SaveRevocations(keymgr.Signed) error {
	if f.full {
		return errors.New("disk is full")
	}
	f.saved++
	return nil
}

// TestFullDiskKeepsNobodyFromBeingRevoked: the list is in force at once, and on disk as soon
// as that is possible.
func TestFullDiskKeepsNobodyFromBeingRevoked(t *testing.T) {
	s := newScene(t)
	cfg, store := s.VerifierConfig("self"), &failingStore{full: true}
	cfg.Revocations = store
	v := s.Open(cfg)
	signed := s.sign(t, list(1, blocked(s.a)))
	for range 2 { // it goes on saying so
		wantReason(t, v.SetRevocations(signed), keymgr.ErrStore)
		if _, revoked := v.Revoked(s.a.Live.ID, keymgr.CertificateInfo{}); !revoked {
			t.Error("a node is not revoked while the disk is full")
		}
	}
	store.full = false
	for range 2 {
		if err := v.SetRevocations(signed); err != nil {
			t.Error(err)
		}
	}
	if store.saved != 1 {
		t.Errorf("saved %d times, want once when there is room", store.saved)
	}
}

// TestReadmittedNodeBeginsAnew: the old key stays refused, the new one is taken
// even where a thief has driven the old history to its end.
func TestReadmittedNodeBeginsAnew(t *testing.T) {
	s := newScene(t)
	old := s.a.Sign()
	mustVerify(t, s.verifier, old, s.a.Live)
	ended := s.a.Edit(func(st *keymgr.Statement) {
		st.Seq = uint64(s.Clock.Now().Add(keymgr.ClockSkew).UnixMilli()) // the highest that readers take
		st.Keys[0].Generation = 1<<64 - 1
		st.Keys[0].Key = keytest.WGKey(t, "thief", 1, s.Clock.Now()).Public
	})
	mustVerify(t, s.verifier, ended, s.a.Live)
	entry := readmitted(t, s.a)
	s.revoke(t, list(1, blocked(s.a)))
	s.Clock.Add(time.Minute)
	s.revoke(t, list(2, entry))
	before, _ := s.a.Identity.Last()
	if err := s.a.Identity.Reset(); err != nil {
		t.Fatal(err)
	}
	s.Certify(s.a)
	s.a.Input.Keys = s.a.Identity.WGKeys().All()
	now := s.a.Sign()
	p := mustVerify(t, s.verifier, now, s.a.Live)
	if len(p.Keys) != 1 || p.Keys[0].Key() != s.a.Input.Keys[0].Public {
		t.Errorf("got keys %v", p.Keys)
	}
	for _, replay := range []keymgr.Signed{old, ended, before} {
		_, err := s.verifier.Verify(replay, s.a.Live)
		wantReason(t, err, keymgr.ErrRevoked)
	}
	mustVerify(t, s.verifier, now, s.a.Live)
	_, err := s.verifier.Verify(s.a.Edit(func(st *keymgr.Statement) { st.Seq = p.Seq - 1 }), s.a.Live)
	wantReason(t, err, keymgr.ErrReplay) // the new history has a mark of its own
	thief := s.Node("thief", "10.244.9.0/24")
	thief.Input.Keys = []identity.WGKey{keytest.WGKey(t, "thief", 1, s.Clock.Now())}
	mustVerify(t, s.verifier, thief.Sign(), thief.Live) // the old key is nobody's any more
}

func TestParseRevocations(t *testing.T) {
	l, err := keymgr.ParseRevocations([]byte(goodList))
	if err != nil || l.Number != 7 || len(l.Nodes) != 1 || !l.Nodes[0].Blocked || len(l.Nodes[0].Keys) != 1 {
		t.Fatalf("got %+v, %v", l, err)
	}
	if payload, err := l.Encode(); err != nil || string(payload) != goodList {
		t.Errorf("encoded anew: %s, %v", payload, err)
	}
	swap := func(before, after string) string { return strings.Replace(goodList, before, after, 1) }
	keys := strings.Repeat(`"`+strings.Repeat("0", 64)+`",`, keymgr.MaxRevokedKeys+1)
	for name, tc := range map[string]struct {
		payload string
		want    error
	}{
		"empty":           {``, keymgr.ErrFormat},
		"array":           {`[]`, keymgr.ErrFormat},
		"trailing":        {goodList + `{}`, keymgr.ErrFormat},
		"twice":           {swap(`"number":7`, `"number":7,"number":8`), keymgr.ErrFormat},
		"other case":      {swap(`"blocked":true`, `"blocked":true,"Blocked":false`), keymgr.ErrFormat},
		"number":          {swap(`"number":7`, `"number":0`), keymgr.ErrFormat},
		"negative number": {swap(`"number":7`, `"number":-1`), keymgr.ErrFormat},
		"type":            {swap(`revocations/v1`, `revocations/v2`), keymgr.ErrType},
		"statement":       {goodPayload, keymgr.ErrType},
		"domain":          {swap(`6f1c9c0e-`, `_`), keymgr.ErrFormat},
		"name":            {swap(`"name":"a"`, `"name":"A"`), keymgr.ErrFormat},
		"uid":             {swap(`"uid":"u-1"`, `"uid":""`), keymgr.ErrFormat},
		"node twice":      {swap(`"nodes":[`, `"nodes":[{"name":"a","uid":"u-1","reason":"x"},`), keymgr.ErrFormat},
		"no reason":       {swap(`"keyCompromise"`, `""`), keymgr.ErrFormat},
		"odd reason":      {swap(`"keyCompromise"`, `"a b"`), keymgr.ErrFormat},
		"short key":       {swap(`"5e`, `"`), keymgr.ErrFormat},
		"too many keys":   {swap(`"keys":[`, `"keys":[`+keys), keymgr.ErrFormat},
		"odd serial":      {swap(`"a1"`, `"-\n"`), keymgr.ErrFormat},
		"long issuer":     {swap(`CN=x`, strings.Repeat("x", 513)), keymgr.ErrFormat},
		"size":            {strings.Repeat(" ", keymgr.MaxRevocations+1), keymgr.ErrTooLarge},
	} {
		_, err := keymgr.ParseRevocations([]byte(tc.payload))
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	newer := swap(`"blocked":true`, `"blocked":true,"since":"tomorrow"`)
	if l, err := keymgr.ParseRevocations([]byte(swap(`"keyCompromise"`, `"aReasonToCome"`))); err != nil || l.Nodes[0].Reason.Code() != 0 {
		t.Errorf("a reason of a newer version: %v", err)
	}
	if _, err := keymgr.ParseRevocations([]byte(newer)); err != nil {
		t.Errorf("a field of a newer version: %v", err)
	}
}

func FuzzParseRevocations(f *testing.F) {
	f.Add([]byte(goodList))
	f.Add([]byte(`{"type":"revocations/v1","trustDomain":"x","number":1,"nodes":null}`))
	f.Add([]byte(`{"nodes":[{"keys":[""]}],"NODES":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := keymgr.ParseRevocations(data)
		if err != nil {
			if label := keymgr.RejectReason(err); !slices.Contains([]string{"format", "size", "type"}, label) {
				t.Fatalf("error %v has label %q", err, label)
			}
			return
		}
		encoded, err := l.Encode()
		if err != nil {
			return // years beyond 9999 parse but do not print
		}
		if len(encoded) > keymgr.MaxRevocations {
			return // fields that were left out are written
		}
		again, err := keymgr.ParseRevocations(encoded)
		if err != nil {
			t.Fatalf("own encoding %s: %v", encoded, err)
		}
		if twice, err := again.Encode(); err != nil || !bytes.Equal(encoded, twice) {
			t.Fatalf("encodings differ: %s and %s (%v)", encoded, twice, err)
		}
	})
}

func TestSignedListTravels(t *testing.T) {
	s := newScene(t)
	signed := s.sign(t, list(3, blocked(s.a)))
	data, err := keymgr.EncodeSigned(signed)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := keymgr.DecodeSigned(data); err != nil || !got.Equal(signed) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "[]", `{"payload":"%"}`, fmt.Sprintf(`{"payload":%q}`, strings.Repeat("A", 2<<20))} {
		if _, err := keymgr.DecodeSigned([]byte(bad)); err == nil {
			t.Errorf("%.20q was decoded", bad)
		}
	}
	l, err := keymgr.VerifyRevocations(signed, s.Authority.Bundle(), keytest.TrustDomain, s.Clock.Now())
	if err != nil || l.Number != 3 {
		t.Errorf("got %+v, %v", l, err)
	}
}

func mustSign(t *testing.T, c *keytest.Cluster, l keymgr.RevocationList) keymgr.Signed {
	t.Helper()
	signed, err := c.Authority.SignRevocations(l)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// mustKey returns the private key of a node.
func mustKey(t *testing.T, n *keytest.Node) crypto.Signer {
	t.Helper()
	cert, err := n.Identity.TLSCertificate()
	if err != nil {
		t.Fatal(err)
	}
	return cert.PrivateKey.(crypto.Signer)
}
