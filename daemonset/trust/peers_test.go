// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package trust

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr"
)

// fakeVerifier accepts statements whose payload is "good".
type fakeVerifier struct{ forgotten []string }

func (f *fakeVerifier) Revoked(keymgr.NodeID, keymgr.CertificateInfo) (keymgr.RevocationReason, bool) {
	return "", false
}

func (f *fakeVerifier) Verify(s keymgr.Signed, live keymgr.LiveNode) (keymgr.Peer, error) {
	if string(s.Payload) != "good" {
		return keymgr.Peer{}, keymgr.ErrSignature
	}
	return keymgr.Peer{ID: live.ID, PodCIDRs: live.PodCIDRs, Until: time.Now().Add(time.Hour), Seq: 1}, nil
}

func (f *fakeVerifier) Remembered() []keymgr.Record { return nil }

func (f *fakeVerifier) Release([]keymgr.LiveNode) {}

func (f *fakeVerifier) Addresses(keymgr.NodeID) []netip.Addr { return nil }

func (f *fakeVerifier) Forget(id keymgr.NodeID) error {
	f.forgotten = append(f.forgotten, id.Name)
	return nil
}

// events keeps what would have been told to the operator.
type events []kube.EventSpec

func (e *events) Event(_ context.Context, s kube.EventSpec) { *e = append(*e, s) }

func TestVerifierKeepsWhatWasAccepted(t *testing.T) {
	v, told := &fakeVerifier{}, &events{}
	j := newPeerVerifier(v, told, slog.New(slog.DiscardHandler), nil)
	snap := cluster.Snapshot{
		Nodes:    []kube.Node{{Name: "a", UID: "1"}, {Name: "b", UID: "2"}},
		NodeKeys: map[string]keymgr.Signed{"b": {Payload: []byte("good")}},
	}
	pass := func() Result {
		t.Helper()
		all := j.verify(t.Context(), snap, "a")
		if len(all) != 1 || all[0].Node.Name != "b" {
			t.Fatalf("verified %+v, want node b alone", all)
		}
		return all[0]
	}
	if got := pass(); got.Err != nil || got.Peer.Seq != 1 {
		t.Fatalf("good statement: %+v", got)
	}
	snap.NodeKeys["b"] = keymgr.Signed{Payload: []byte("forged")}
	for range 3 {
		if got := pass(); !errors.Is(got.Err, keymgr.ErrSignature) || got.Peer.Seq != 1 {
			t.Errorf("forged statement: %+v; want it refused, and the old one in force", got)
		}
	}
	if r := j.counts().refusals; len(r) != 1 || r[0].Count != 1 || r[0].Reason != "signature" || len(*told) != 1 {
		t.Errorf("one forgery seen three times: refusals %+v, events %+v; want one of each", r, *told)
	}
	delete(snap.NodeKeys, "b")
	if got := pass(); got.Peer.Seq != 1 {
		t.Errorf("NodeKey deleted: %+v; want the old one in force", got)
	}
	snap.Nodes = snap.Nodes[:1]
	if all := j.verify(t.Context(), snap, "a"); len(all) != 0 || len(v.forgotten) != 1 {
		t.Errorf("node gone: verified %+v, forgotten %v", all, v.forgotten)
	}
	snap.Nodes = append(snap.Nodes, kube.Node{Name: "b", UID: "3"})
	if got := j.verify(t.Context(), snap, "a")[0]; got.Peer.Seq != 0 {
		t.Errorf("a new node of the same name has the old one's statement: %+v", got)
	}
}
