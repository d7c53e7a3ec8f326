// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package trust

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/readiness"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/keytest"
)

// court is an agent on node "self" that judges node b of a real cluster.
type court struct {
	t      *testing.T
	c      *keytest.Cluster
	b      *keytest.Node
	snap   cluster.Snapshot
	told   events
	keeper *Keeper
	list   keymgr.RevocationList
}

func newCourt(t *testing.T) *court {
	t.Helper()
	k := &court{t: t, c: keytest.NewCluster(t)}
	k.c.Clock.Add(time.Since(k.c.Clock.Now())) // the judge has the clock of the machine
	k.b = k.c.Node("b", "10.244.2.0/24")
	k.keeper = newKeeper(Config{Events: &k.told, State: readiness.New(readiness.Keys), Logger: slog.New(slog.DiscardHandler)},
		k.c.Identity(keytest.ID("self"), t.TempDir()), k.c.Verifier("self"), nil)
	for _, id := range []keymgr.NodeID{k.keeper.identity.Node(), k.b.Live.ID} {
		k.snap.Nodes = append(k.snap.Nodes, kube.Node{
			Name: id.Name, UID: id.UID, PodCIDRs: k.b.Live.PodCIDRs, Addresses: k.b.Live.Addresses, Created: k.b.Live.Created,
		})
	}
	k.snap.Nodes[0].PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}
	k.snap.NodeKeys = map[string]keymgr.Signed{"b": k.b.Sign()}
	k.list = keymgr.RevocationList{Type: keymgr.RevocationsType, TrustDomain: keytest.TrustDomain}
	return k
}

// publish makes the cluster's list say this of nodes.
func (k *court) publish(nodes ...keymgr.RevokedNode) {
	k.t.Helper()
	k.list.Number++
	k.list.Nodes = nodes
	signed, err := k.c.Authority.SignRevocations(k.list)
	if err != nil {
		k.t.Fatal(err)
	}
	if k.snap.Revoked.List, err = keymgr.EncodeSigned(signed); err != nil {
		k.t.Fatal(err)
	}
}

func entry(id keymgr.NodeID, blocked bool, keys ...keymgr.Hash) keymgr.RevokedNode {
	return keymgr.RevokedNode{
		Name: id.Name, UID: id.UID, Reason: keymgr.ReasonKeyCompromise, Blocked: blocked, Keys: keys, Expires: time.Now().Add(time.Hour),
	}
}

func hashOf(t *testing.T, id *identity.Identity) keymgr.Hash {
	t.Helper()
	hash, err := id.KeyHash()
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

// pass is one look of the network loop, as far as it concerns keys.
func (k *court) pass() Result {
	k.t.Helper()
	if _, err := k.keeper.identity.WGKeys().Ensure(); err != nil {
		k.t.Fatal(err)
	}
	if err := k.keeper.Follow(k.snap.Nodes[0], k.snap); err != nil {
		k.t.Fatal(err)
	}
	var own []uint64
	for _, key := range k.keeper.identity.WGKeys().All() {
		own = append(own, key.Generation)
	}
	k.keeper.SetKeys(own, nil)
	all := k.keeper.Verify(k.t.Context(), k.snap, "self")
	if len(all) != 1 {
		k.t.Fatalf("Result %+v", all)
	}
	return all[0]
}

// laneOf reports whether there may be a lane to the other node.
func (k *court) laneOf(j Result) bool {
	k.t.Helper()
	return len(j.Peer.Keys) > 0
}

func TestRevokedPeerLosesItsLaneAtOnce(t *testing.T) {
	signedBefore := func(k *court) { k.snap.NodeKeys["b"] = k.b.Sign() }
	for name, spoil := range map[string]func(k *court){
		"its NodeKey stands":   func(*court) {},
		"its NodeKey is gone":  func(k *court) { delete(k.snap.NodeKeys, "b") },
		"a newer NodeKey":      signedBefore,
		"its NodeKey is wrong": func(k *court) { k.snap.NodeKeys["b"] = keymgr.Signed{Payload: []byte("x")} },
	} {
		t.Run(name, func(t *testing.T) {
			k := newCourt(t)
			if j := k.pass(); !k.laneOf(j) {
				t.Fatalf("no lane before: %+v", j)
			}
			k.publish(entry(k.b.Live.ID, true, hashOf(t, k.b.Identity)))
			spoil(k)
			for range 3 {
				if j := k.pass(); k.laneOf(j) || !errors.Is(j.Err, keymgr.ErrRevoked) {
					t.Fatalf("after: %+v", j)
				}
			}
			if len(k.told) != 1 || k.told[0].Reason != "LanesCut" || !strings.Contains(k.told[0].Message, "keyCompromise") {
				t.Errorf("events %+v, want one", k.told)
			}
			if r := k.keeper.Facts().Refused; len(r) != 1 || r[0].Reason != "revoked" || r[0].Count != 1 {
				t.Errorf("refusals %+v, want one", r)
			}
			// The list is put back by somebody who can only write: nothing comes back.
			k.snap.Revoked = cluster.RevocationRecord{}
			if j := k.pass(); k.laneOf(j) {
				t.Error("a list that is gone readmits")
			}
		})
	}
}

// TestRevokedAlthoughTheBundleIsBad: somebody who spoils the trust bundle does not keep a
// node from being cut off, and the others stay as they are.
func TestRevokedAlthoughTheBundleIsBad(t *testing.T) {
	k := newCourt(t)
	if j := k.pass(); !k.laneOf(j) {
		t.Fatalf("no lane before: %+v", j)
	}
	k.snap.Bundle = []byte("no certificates")
	look := func() Result {
		if err := k.keeper.Learn(k.snap.Nodes[0], k.snap); err != nil {
			t.Error(err)
		}
		if k.keeper.Facts().BundleRefused == "" {
			t.Error("a bad bundle is not refused")
		}
		return k.keeper.Verify(t.Context(), k.snap, "self")[0]
	}
	if j := look(); !k.laneOf(j) {
		t.Errorf("the bundle alone: %+v", j)
	}
	k.publish(entry(k.b.Live.ID, true, hashOf(t, k.b.Identity)))
	if j := look(); k.laneOf(j) || !errors.Is(j.Err, keymgr.ErrRevoked) {
		t.Errorf("after: %+v", j)
	}
}

func TestReadmittedPeerNeedsANewKey(t *testing.T) {
	k := newCourt(t)
	old := k.snap.NodeKeys["b"]
	k.pass()
	hash := hashOf(t, k.b.Identity)
	k.publish(entry(k.b.Live.ID, true, hash))
	k.pass()
	k.publish(entry(k.b.Live.ID, false, hash))
	if j := k.pass(); k.laneOf(j) || !errors.Is(j.Err, keymgr.ErrRevoked) {
		t.Errorf("with its old key: %+v", j)
	}
	if err := k.b.Identity.Reset(); err != nil {
		t.Fatal(err)
	}
	k.c.Certify(k.b)
	k.b.Input.Keys = k.b.Identity.WGKeys().All()
	k.snap.NodeKeys["b"] = k.b.Sign()
	if j := k.pass(); !k.laneOf(j) || j.Err != nil {
		t.Errorf("with its new key: %+v", j)
	}
	k.snap.NodeKeys["b"] = old // the thief puts it back
	if j := k.pass(); !k.laneOf(j) || j.Peer.Keys[0].Key() != k.b.Input.Keys[0].Public {
		t.Errorf("the old NodeKey put back: %+v; want the new one in force", j)
	}
	// Revoked by key alone, without a block, while it is in force.
	k.publish(entry(k.b.Live.ID, false, hash, hashOf(t, k.b.Identity)))
	if j := k.pass(); k.laneOf(j) {
		t.Errorf("key revoked: %+v", j)
	}
}

func TestBadListIsReportedOnceAndChangesNothing(t *testing.T) {
	k := newCourt(t)
	k.publish(entry(k.b.Live.ID, true))
	k.pass()
	k.keeper.cfg.Cluster = nowhere{}
	for range 2 {
		k.snap.Revoked.List = []byte(`{"payload":"e30=","signature":"","chain":[]}`)
		if j := k.pass(); k.laneOf(j) {
			t.Fatal("readmitted by a bad list")
		}
		if err := k.keeper.checkSelfRevoked(t.Context()); err != nil {
			t.Errorf("this node: %v", err)
		}
	}
	refused := 0
	for _, e := range k.told {
		if e.Reason == "RevocationListRefused" {
			refused++
		}
	}
	if refused != 1 || k.keeper.RevocationNumber() != 1 {
		t.Errorf("told %d times, list %d in force; events %+v", refused, k.keeper.RevocationNumber(), k.told)
	}
}

// nowhere is a cluster that must not be asked for anything.
type nowhere struct{ Cluster }

// office issues certificates to this node.
type office struct {
	Cluster
	k         *court
	requests  int
	published keymgr.Signed
}

func (o *office) RequestCertificate(_ context.Context, r kube.CertificateRequest) ([][]byte, error) {
	o.requests++
	live := o.k.snap.Nodes[0].Live()
	live.ID = r.Node
	return o.k.c.Issue(r.CSR, live), nil
}

func (o *office) PublishNodeKey(_ context.Context, _ keymgr.NodeID, s keymgr.Signed) error {
	o.published = s
	return nil
}

func TestThisNodeIsRevokedAndReadmitted(t *testing.T) {
	k := newCourt(t)
	desk := &office{k: k}
	k.keeper.cfg.Cluster = desk
	k.snap.Bundle = k.c.Authority.Bundle()
	refresh := func() error {
		t.Helper()
		k.pass()
		return k.keeper.refresh(t.Context(), k.keeper.want)
	}
	report := func(err error) (ready bool, why string) {
		t.Helper()
		k.keeper.cfg.State.Report(readiness.Keys, err)
		return k.keeper.cfg.State.Ready(), strings.Join(k.keeper.cfg.State.Reasons(), "; ")
	}
	if err := refresh(); err != nil {
		t.Fatal(err)
	}
	if ready, why := report(nil); !ready {
		t.Fatalf("not ready: %s", why)
	}
	before, hash := k.keeper.identity.WGKeys().All(), hashOf(t, k.keeper.identity)
	first, err := keymgr.ParseStatement(desk.published.Payload)
	if err != nil {
		t.Fatal(err)
	}

	self := k.keeper.identity.Node()
	k.publish(entry(self, true, hash))
	err = refresh()
	if !errors.Is(err, keymgr.ErrRevoked) || desk.requests != 1 {
		t.Errorf("revoked: %v after %d requests", err, desk.requests)
	}
	if ready, why := report(err); ready || !strings.Contains(why, "keyCompromise") || !strings.Contains(why, "sealane readmit self") {
		t.Errorf("ready: %t, because %s", ready, why)
	}
	if k.keeper.revokedFor() != "keyCompromise" {
		t.Errorf("reported as %q", k.keeper.revokedFor())
	}

	k.publish(entry(self, false, hash))
	if err := refresh(); !errors.Is(err, errNoLanes) {
		t.Fatalf("readmitted, before the network loop has seen the new key: %v", err)
	}
	if err := refresh(); err != nil {
		t.Fatal(err)
	}
	if ready, why := report(nil); !ready {
		t.Errorf("not ready: %s", why)
	}
	after := k.keeper.identity.WGKeys().All()
	if hashOf(t, k.keeper.identity) == hash || len(after) != 1 || after[0].Generation <= before[0].Generation || desk.requests != 2 {
		t.Errorf("same node key %t, generations %v, %d requests", hashOf(t, k.keeper.identity) == hash, after, desk.requests)
	}
	second, err := keymgr.ParseStatement(desk.published.Payload)
	if err != nil || second.Seq <= first.Seq || second.Keys[0].Key != after[0].Public {
		t.Errorf("published %+v, %v", second, err)
	}
	select {
	case <-k.keeper.changed:
	default:
		t.Error("the network loop is not told of the new key")
	}
	if err := refresh(); err != nil || desk.requests != 2 {
		t.Errorf("at rest: %v, %d requests", err, desk.requests)
	}
}
