// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/ca/memorystore"
	"github.com/sealane/sealane/keymgr/keytest"
	"github.com/sealane/sealane/keymgr/markstore"
)

// countingMarks counts what is saved, or fails.
type countingMarks struct {
	keymgr.MarkStore
	saves int
	fail  error
}

func (m *countingMarks) Save(r keymgr.Record) error {
	if m.fail != nil {
		return m.fail
	}
	m.saves++
	return m.MarkStore.Save(r)
}

// reopened returns a scene with marks on disk and a function that restarts its verifier.
func reopened(t *testing.T) (s *scene, restart func()) {
	t.Helper()
	c := keytest.NewCluster(t)
	s = &scene{Cluster: c, a: c.Node("a", "10.244.1.0/24"), b: c.Node("b", "10.244.2.0/24")}
	cfg := c.VerifierConfig("self")
	cfg.Marks = markstore.New(filepath.Join(t.TempDir(), "peers"))
	restart = func() { s.verifier = c.Open(cfg) }
	restart()
	return s, restart
}

func TestMarksSurviveRestart(t *testing.T) {
	s, restart := reopened(t)
	old := s.a.Sign()
	s.Clock.Add(time.Second)
	current := s.a.Sign()
	mustVerify(t, s.verifier, current, s.a.Live)
	mustVerify(t, s.verifier, s.b.Sign(), s.b.Live)
	restart()

	_, err := s.verifier.Verify(old, s.a.Live)
	wantReason(t, err, keymgr.ErrReplay)
	_, err = s.verifier.Verify(s.a.Forge(append(current.Payload, ' ')), s.a.Live)
	wantReason(t, err, keymgr.ErrFork)
	s.a.Input.Keys = s.b.Input.Keys
	_, err = s.verifier.Verify(s.a.Sign(), s.a.Live)
	wantReason(t, err, keymgr.ErrGeneration) // its own generation 1 was another key
	n := s.Node("n", "10.244.2.0/26")
	_, err = s.verifier.Verify(n.Sign(), n.Live)
	wantReason(t, err, keymgr.ErrPodCIDROverlap)
	mustVerify(t, s.verifier, current, s.a.Live)
}

func TestRestoreWithoutAPIServer(t *testing.T) {
	s, restart := reopened(t)
	a := mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)
	b := mustVerify(t, s.verifier, s.b.Sign(), s.b.Live)
	n := s.Node("gone", "10.244.3.0/24")
	mustVerify(t, s.verifier, n.Sign(), n.Live)
	if err := s.verifier.Forget(n.Live.ID); err != nil {
		t.Fatal(err)
	}
	restart()

	peers, err := s.verifier.Restore()
	if err != nil || len(peers) != 2 {
		t.Fatalf("Restore gave %d peers and error %v, want 2", len(peers), err)
	}
	for i, want := range []keymgr.Peer{a, b} {
		if peers[i].ID != want.ID || !slices.EqualFunc(peers[i].Keys, want.Keys, keymgr.PeerKey.Equal) {
			t.Errorf("peer %d is %v with %v, want %v with %v", i, peers[i].ID, peers[i].Keys, want.ID, want.Keys)
		}
	}
	// Expired meanwhile, they still serve for the grace time, as before the restart.
	s.Clock.Add(keymgr.StatementLifetime + time.Hour)
	restart()
	if peers, err = s.verifier.Restore(); err != nil || len(peers) != 2 || !peers[0].Grace {
		t.Errorf("in the grace time: %d peers and error %v, want 2 in grace", len(peers), err)
	}
	s.Clock.Add(keymgr.DefaultGrace)
	restart()
	if peers, err = s.verifier.Restore(); !errors.Is(err, keymgr.ErrExpired) || len(peers) != 0 {
		t.Errorf("after the grace time: %d peers and error %v, want none", len(peers), err)
	}
}

// The mark outlives Forget until no old statement could be valid: whoever can
// delete and restore a Node object cannot roll its keys back.
func TestMarkOutlivesForget(t *testing.T) {
	s, restart := reopened(t)
	old := s.a.Sign()
	s.Clock.Add(time.Second)
	current := s.a.Sign()
	mustVerify(t, s.verifier, current, s.a.Live)
	if err := s.verifier.Forget(s.a.Live.ID); err != nil {
		t.Fatal(err)
	}
	restart()
	_, err := s.verifier.Verify(old, s.a.Live)
	wantReason(t, err, keymgr.ErrReplay)
	mustVerify(t, s.verifier, current, s.a.Live)

	if err := s.verifier.Forget(s.a.Live.ID); err != nil {
		t.Fatal(err)
	}
	// Expired and gone: no grace for a lane that is no more.
	s.Clock.Add(keymgr.StatementLifetime + time.Hour)
	_, err = s.verifier.Verify(current, s.a.Live)
	wantReason(t, err, keymgr.ErrExpired)
}

// A node that comes back after Forget is a node like any other after a restart.
func TestForgottenNodeComesBack(t *testing.T) {
	s, restart := reopened(t)
	signed := s.a.Sign()
	mustVerify(t, s.verifier, signed, s.a.Live)
	if err := s.verifier.Forget(s.a.Live.ID); err != nil {
		t.Fatal(err)
	}
	if peers, err := s.verifier.Restore(); err != nil || len(peers) != 0 {
		t.Errorf("forgotten: %d peers, %v", len(peers), err)
	}
	mustVerify(t, s.verifier, signed, s.a.Live)
	restart()
	if peers, err := s.verifier.Restore(); err != nil || len(peers) != 1 {
		t.Errorf("back and restarted: %d peers, %v; want 1", len(peers), err)
	}
}

func TestForgottenNodeHoldsNothingAfterRestart(t *testing.T) {
	s, restart := reopened(t)
	mustVerify(t, s.verifier, s.b.Sign(), s.b.Live)
	if err := s.verifier.Forget(s.b.Live.ID); err != nil {
		t.Fatal(err)
	}
	restart()
	n := s.Node("n", "10.244.2.0/24")
	n.Input.Keys = s.b.Input.Keys
	mustVerify(t, s.verifier, n.Sign(), n.Live)
}

// What Restore starts from is the newest certificate and the newest Node object.
func TestStoredRecordFollows(t *testing.T) {
	s, restart := reopened(t)
	signed := s.a.Sign()
	mustVerify(t, s.verifier, signed, s.a.Live)
	s.Certify(s.a)
	renewed := s.a.Forge(signed.Payload)
	want := mustVerify(t, s.verifier, renewed, s.a.Live)
	restart()
	peers, err := s.verifier.Restore()
	if err != nil || len(peers) != 1 || peers[0].Certificate != want.Certificate {
		t.Errorf("restored %+v, %v; want the renewed certificate", peers, err)
	}

	for _, change := range []func(*keymgr.LiveNode){
		func(l *keymgr.LiveNode) { l.PodCIDRs = nil },
		func(l *keymgr.LiveNode) { l.Addresses = append(l.Addresses, netip.MustParseAddr("10.9.9.9")) },
	} {
		store := &countingMarks{MarkStore: markstore.New(t.TempDir())}
		cfg := s.VerifierConfig("self")
		cfg.Marks = store
		v, n := s.Open(cfg), s.Node("n", "10.244.7.0/24")
		n.Input.PodCIDRs = nil
		signed, live := n.Sign(), n.Live
		for range 2 {
			mustVerify(t, v, signed, live)
		}
		change(&live)
		for range 2 {
			mustVerify(t, v, signed, live)
		}
		if store.saves != 2 {
			t.Errorf("%d writes, want one for the statement and one for the Node that changed", store.saves)
		}
	}
}

// The mark protects from the node's earlier statements too, whose certificate may
// have lasted longer than the last one.
func TestMarkLastsAsLongAsAnyCertificate(t *testing.T) {
	c := keytest.NewCluster(t)
	dir := t.TempDir()
	cfg := c.VerifierConfig("self")
	cfg.Marks = markstore.New(dir)
	v, a := c.Open(cfg), c.Node("a")
	mustVerify(t, v, a.Sign(), a.Live)

	short := keytest.NewClusterWith(t, c.Clock, ca.Config{
		Store: memorystore.New(), Clock: c.Clock.Now, IntermediateLifetime: time.Hour,
	})
	if err := v.SetRoots(slices.Concat(c.Authority.Bundle(), short.Authority.Bundle())); err != nil {
		t.Fatal(err)
	}
	short.Certify(a)
	mustVerify(t, v, a.Sign(), a.Live)
	if err := v.Forget(a.Live.ID); err != nil {
		t.Fatal(err)
	}
	c.Clock.Add(keymgr.DefaultGrace + 24*time.Hour)
	c.Open(cfg)
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("%d marks left, %v; want 1", len(files), err)
	}
}

func TestLapsedMarksAreDeleted(t *testing.T) {
	c := keytest.NewCluster(t)
	dir := t.TempDir()
	cfg := c.VerifierConfig("self")
	cfg.Marks = markstore.New(dir)
	v, a, b := c.Open(cfg), c.Node("a"), c.Node("b")
	mustVerify(t, v, a.Sign(), a.Live)
	mustVerify(t, v, b.Sign(), b.Live)
	if err := v.Forget(a.Live.ID); err != nil {
		t.Fatal(err)
	}
	c.Clock.Add(30 * 24 * time.Hour)
	c.Open(cfg)
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || files[0].Name() != b.Live.ID.UID+".json" {
		t.Errorf("marks left: %v, %v; want only that of the node that is not gone", files, err)
	}
}

func TestNothingIsAcceptedWithoutStore(t *testing.T) {
	c := keytest.NewCluster(t)
	broken := errors.New("disk full")
	store := &countingMarks{MarkStore: markstore.New(t.TempDir()), fail: broken}
	cfg := c.VerifierConfig("self")
	cfg.Marks = store
	v, a, b := c.Open(cfg), c.Node("a"), c.Node("b")
	_, err := v.Verify(a.Sign(), a.Live)
	wantReason(t, err, keymgr.ErrStore)
	if !errors.Is(err, broken) {
		t.Errorf("error %v does not wrap the cause", err)
	}
	store.fail = nil
	b.Input.Keys = a.Input.Keys // a's claim was not kept
	mustVerify(t, v, b.Sign(), b.Live)
}

func TestCorruptMarkStopsVerifier(t *testing.T) {
	for name, content := range map[string]string{
		"rubbish":    "{",
		"other node": `{"id":{"name":"a","uid":"other"}}`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "uid-1.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := keymgr.NewVerifier(keymgr.VerifierConfig{
			TrustDomain: keytest.TrustDomain, Self: keytest.ID("self"), Marks: markstore.New(dir),
		})
		if !errors.Is(err, keymgr.ErrCorrupt) {
			t.Errorf("%s: error %v, want ErrCorrupt", name, err)
		}
	}
}

// A record that lacks its statement, as a repair by hand may leave it, is a mark all
// the same, and is made whole by the statement it is about.
func TestMarkWithoutStatement(t *testing.T) {
	c := keytest.NewCluster(t)
	n := c.Node("a")
	signed := n.Sign()
	store := markstore.New(t.TempDir())
	stmt, err := keymgr.ParseStatement(signed.Payload)
	if err != nil {
		t.Fatal(err)
	}
	bare := keymgr.Record{ID: n.Live.ID, Seq: stmt.Seq, Hash: keymgr.HashPayload(signed.Payload), Live: n.Live}
	if err := store.Save(bare); err != nil {
		t.Fatal(err)
	}
	cfg := c.VerifierConfig("self")
	cfg.Marks = store
	mustVerify(t, c.Open(cfg), signed, n.Live)
	if peers, err := c.Open(cfg).Restore(); err != nil || len(peers) != 1 {
		t.Errorf("restored %d peers, %v; want 1", len(peers), err)
	}
}
