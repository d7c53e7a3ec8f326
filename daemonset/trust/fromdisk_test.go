// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package trust

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/sealane/sealane/daemonset/checkpoint"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/keytest"
	"github.com/sealane/sealane/keymgr/markstore"
)

// TestFromDiskNobodyIsTrustedMore: what a daemon finds on disk goes through the same
// judgement as what the API server says.
func TestFromDiskNobodyIsTrustedMore(t *testing.T) {
	for name, tc := range map[string]struct {
		meanwhile func(*court, *markstore.Store)
		lane      bool
		grace     bool
	}{
		"nothing happened": {func(*court, *markstore.Store) {}, true, false},
		"revoked before": {func(k *court, _ *markstore.Store) {
			k.publish(entry(k.b.Live.ID, true, hashOf(k.t, k.b.Identity)))
			k.keeper.revocations.follow(k.snap.Revoked)
		}, false, false},
		"its key revoked before": {func(k *court, _ *markstore.Store) {
			k.publish(entry(k.b.Live.ID, false, hashOf(k.t, k.b.Identity)))
			k.keeper.revocations.follow(k.snap.Revoked)
		}, false, false},
		"in grace":   {func(k *court, _ *markstore.Store) { k.c.Clock.Add(keymgr.StatementLifetime + time.Hour) }, true, true},
		"long ended": {func(k *court, _ *markstore.Store) { k.c.Clock.Add(15*24*time.Hour + keymgr.ClockSkew) }, false, false},
		"statement spoilt on disk": {func(k *court, m *markstore.Store) {
			k.spoil(m, func(r *keymgr.Record) { r.Statement.Signature[9] ^= 1 })
		}, false, false},
		"address changed on disk": {func(k *court, m *markstore.Store) {
			k.spoil(m, func(r *keymgr.Record) { r.Live.PodCIDRs = k.snap.Nodes[0].PodCIDRs })
		}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			k, marks := newCourt(t), markstore.New(t.TempDir())
			cfg := k.c.VerifierConfig("self")
			cfg.Marks, cfg.Revocations = marks, marks
			k.sit(k.c.Open(cfg), nil)
			if j := k.pass(); !k.laneOf(j) {
				t.Fatalf("no lane before: %+v", j)
			}
			look := k.keep()
			tc.meanwhile(k, marks)

			// The daemon starts again, and the API server is away.
			v := k.c.Open(cfg)
			restored, _ := v.Restore() // what fails there fails below
			k.sit(v, restored)
			k.keeper.peers.clock = k.c.Clock.Now
			k.snap = look(v)
			if err := k.keeper.Learn(k.snap.Nodes[0], k.snap); err != nil {
				t.Fatal(err)
			}
			all := k.keeper.Verify(t.Context(), k.snap, "self")
			if len(all) != 1 || k.laneOf(all[0]) != tc.lane || all[0].Peer.Grace != tc.grace {
				t.Errorf("Result %+v; want a lane: %t, in grace: %t", all, tc.lane, tc.grace)
			}
			if k.keeper.want != nil {
				t.Error("the identity follows what is on disk")
			}
		})
	}
}

// sit gives the court another verifier.
func (k *court) sit(v *keymgr.Verifier, restored []keymgr.Peer) {
	k.keeper = newKeeper(k.keeper.cfg, k.keeper.identity, v, restored)
}

// spoil changes the record of the Result node.
func (k *court) spoil(marks *markstore.Store, change func(*keymgr.Record)) {
	k.t.Helper()
	all, err := marks.Load()
	if err != nil || len(all) != 1 {
		k.t.Fatalf("%d records, error %v", len(all), err)
	}
	change(&all[0])
	if err := marks.Save(all[0]); err != nil {
		k.t.Fatal(err)
	}
}

// keep saves the checkpoint of a daemon that runs, and returns what the next one follows
// when it starts without the API server.
func (k *court) keep() (look func(*keymgr.Verifier) cluster.Snapshot) {
	k.t.Helper()
	there := answers{node: k.snap.Nodes[0]}
	cfg := checkpoint.Config{
		Path: filepath.Join(k.t.TempDir(), "checkpoint.json"), Node: k.keeper.identity.Node().Name, Cluster: &there, Report: func(error) {},
		Logger: slog.New(slog.DiscardHandler), Patience: time.Millisecond,
	}
	begin := func() *checkpoint.Store {
		keeper, err := checkpoint.Load(k.t.Context(), cfg)
		if err != nil {
			k.t.Fatal(err)
		}
		return keeper
	}
	recall := func(v *keymgr.Verifier) checkpoint.Records {
		return func() ([]keymgr.Record, keymgr.Signed) { return v.Remembered(), keymgr.Signed{} }
	}
	begin().Save(k.snap, recall(k.keeper.verifier))
	return func(v *keymgr.Verifier) cluster.Snapshot {
		there.away = context.DeadlineExceeded
		keeper := begin()
		if keeper.FromDisk() == nil {
			k.t.Fatal("not started from disk")
		}
		snap, _ := keeper.Current(noWatch{}, recall(v))
		return snap
	}
}

// answers is an API server that knows one node.
type answers struct {
	node kube.Node
	away error
}

func (a *answers) TrustDomain(context.Context) (string, error)     { return keytest.TrustDomain, a.away }
func (a *answers) Node(context.Context, string) (kube.Node, error) { return a.node, a.away }
func (a *answers) ClusterNetworks(context.Context) (kube.Networks, error) {
	return kube.Networks{}, a.away
}

// TestRangeOfANodeThatWentMeanwhile: while this machine was off for long, a node was
// deleted, whose statement cannot be restored any more, and another one has its range.
func TestRangeOfANodeThatWentMeanwhile(t *testing.T) {
	k := newCourt(t)
	cfg := k.c.VerifierConfig("self")
	cfg.Marks = markstore.New(t.TempDir())
	k.sit(k.c.Open(cfg), nil)
	if j := k.pass(); !k.laneOf(j) {
		t.Fatalf("no lane before: %+v", j)
	}
	k.c.Clock.Add(11 * 24 * time.Hour)
	heir := k.c.Node("heir", "10.244.2.0/24")
	v := k.c.Open(cfg)
	restored, err := v.Restore()
	if len(restored) != 0 || !errors.Is(err, keymgr.ErrExpired) {
		t.Fatalf("restored %v, %v; want it to have ended", restored, err)
	}
	k.sit(v, restored)
	k.keeper.peers.clock = k.c.Clock.Now
	k.snap.Nodes[1] = kube.Node{Name: "heir", UID: heir.Live.ID.UID, PodCIDRs: heir.Live.PodCIDRs, Addresses: heir.Live.Addresses, Created: heir.Live.Created}
	k.snap.NodeKeys = map[string]keymgr.Signed{"heir": heir.Sign()}
	if j := k.pass(); !k.laneOf(j) || j.Err != nil {
		t.Errorf("the heir: %+v", j)
	}
	if all := v.Remembered(); len(all) != 1 || all[0].ID != heir.Live.ID {
		t.Errorf("remembered: %+v", all)
	}
}

// noWatch is an API server that nothing has been heard of.
type noWatch struct{}

func (noWatch) Changed() <-chan struct{}           { return nil }
func (noWatch) Snapshot() (cluster.Snapshot, bool) { return cluster.Snapshot{}, false }
