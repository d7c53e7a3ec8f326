// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package revocation

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/sealane/sealane/controller/controllertest"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr"
)

// TestNewLeaderForgetsNoRevokedKey: of a readmitted node no order tells the old
// keys, and after an hour no request does.
func TestNewLeaderForgetsNoRevokedKey(t *testing.T) {
	for name, tamper := range map[string]func(w *controllertest.World, old cluster.RevocationRecord){
		"deleted": func(w *controllertest.World, _ cluster.RevocationRecord) { w.Record = cluster.RevocationRecord{} },
		"emptied": func(w *controllertest.World, _ cluster.RevocationRecord) { w.Record.List, w.Record.CRL = nil, nil },
		"put back": func(w *controllertest.World, old cluster.RevocationRecord) {
			w.Record.List, w.Record.CRL = old.List, old.CRL
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := controllertest.NewWorld(t)
			w.AddNode("n1", "u1", "10.244.1.0/24")
			l := newLeader(t, w)
			first := w.Ask("n1", controllertest.NewKey(t))
			l.rest(t, w)
			w.Publish("n1", w.Request(first).Certificate)
			old := w.Record
			w.Order("n1", keymgr.ReasonKeyCompromise)
			l.rest(t, w)
			w.Orders = nil
			l.rest(t, w)
			before := l.list(t, w)

			w.Now, w.AllRequests = w.Now.Add(2*time.Hour), nil
			tamper(w, old)
			if w.Record.Version != "" {
				w.Record.Version += "-tampered"
			}
			l = l.succeed(w)
			l.rest(t, w)
			after := l.list(t, w)
			if entry, _ := after.Node("u1"); len(entry.Keys) != 1 || after.Number < before.Number {
				t.Errorf("list %d, %+v; before %d, %+v", after.Number, after.Nodes, before.Number, before.Nodes)
			}
		})
	}
}

// brokenStore fails as told.
type brokenStore struct {
	Store
	open, keep error
}

func (v *brokenStore) KeptRevocations(ctx context.Context) (keymgr.Signed, keymgr.RevocationList, error) {
	if v.open != nil {
		return keymgr.Signed{}, keymgr.RevocationList{}, v.open
	}
	return v.Store.KeptRevocations(ctx)
}

func (v *brokenStore) KeepRevocations(ctx context.Context, s keymgr.Signed) error {
	if v.keep != nil {
		return v.keep
	}
	return v.Store.KeepRevocations(ctx, s)
}

func TestStoreFails(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	w.Order("n1", keymgr.ReasonKeyCompromise)
	l := newLeader(t, w)
	v := &brokenStore{Store: l.revoker.Store, open: controllertest.ErrAway, keep: controllertest.ErrAway}
	l.revoker.Store = v
	if err := l.revoker.pass(t.Context()); !errors.Is(err, controllertest.ErrAway) || w.Writes != 0 {
		t.Errorf("before it is known what was kept: got error %v, %d writes", err, w.Writes)
	}
	v.open = nil
	if err := l.revoker.pass(t.Context()); !errors.Is(err, controllertest.ErrAway) {
		t.Errorf("got error %v for a list that is not kept", err)
	}
	list := l.list(t, w)
	if entry, _ := list.Node("u1"); !entry.Blocked {
		t.Error("the node is not revoked while the list cannot be kept")
	}
	v.keep = nil
	l.rest(t, w)
	if _, kept, err := v.KeptRevocations(t.Context()); err != nil || kept.Number != list.Number {
		t.Errorf("kept list %d, %v; want %d", kept.Number, err, list.Number)
	}
}

// TestLaterListIsKept: another controller was the leader in the meantime.
func TestLaterListIsKept(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	first := newLeader(t, w)
	first.rest(t, w)
	list := first.list(t, w)
	list.Number += 500_000 // its clock is ahead
	signed, err := first.revoker.Signer.SignRevocations(list)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.revoker.Store.KeepRevocations(t.Context(), signed); err != nil {
		t.Fatal(err)
	}
	w.Order("n1", keymgr.ReasonKeyCompromise)
	if err := first.revoker.pass(t.Context()); err == nil {
		t.Error("an earlier list was kept")
	}
	first.rest(t, w)
	after := first.list(t, w)
	if entry, _ := after.Node("u1"); !entry.Blocked || after.Number <= list.Number {
		t.Errorf("list %d after %d: %+v", after.Number, list.Number, after.Nodes)
	}
}

// TestClockThatWasAhead: nodes refuse numbers from the future, so that the list begins again at
// the clock, with all that it said. A published number from the future counts for nothing.
func TestClockThatWasAhead(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	l := newLeader(t, w)
	first := w.Ask("n1", controllertest.NewKey(t))
	l.rest(t, w)
	w.Publish("n1", w.Request(first).Certificate)
	w.Now = w.Now.Add(time.Hour)
	w.Order("n1", keymgr.ReasonKeyCompromise)
	l.rest(t, w)
	w.Orders, w.AllRequests = nil, nil
	l.rest(t, w)
	before := l.list(t, w)

	w.Now = w.Now.Add(-time.Hour)
	l = l.succeed(w)
	for range 2 {
		l.rest(t, w)
		after := l.list(t, w)
		if err := keymgr.CheckNumber(after.Number, w.Now); err != nil || after.Number >= before.Number {
			t.Errorf("list %d follows %d: %v", after.Number, before.Number, err)
		}
		if entry, _ := after.Node("u1"); len(entry.Keys) != 1 || entry.Blocked {
			t.Errorf("forgot what was revoked: %+v", after.Nodes)
		}
		_, kept, err := l.revoker.Store.KeptRevocations(t.Context())
		if err != nil || kept.Number != after.Number {
			t.Errorf("kept list %d, %v; want %d", kept.Number, err, after.Number)
		}

		// Somebody with an issuer's key publishes the last number that there is.
		after.Number = math.MaxUint64
		signed, err := l.revoker.Signer.SignRevocations(after)
		if err != nil {
			t.Fatal(err)
		}
		if w.Record.List, err = keymgr.EncodeSigned(signed); err != nil {
			t.Fatal(err)
		}
		w.Record.Version += "-tampered"
		before.Number = math.MaxUint64
	}
	l.rest(t, w)

	// It was this clock that was behind: what nodes took before bars nothing any more.
	w.Now = w.Now.Add(2 * time.Hour)
	l.revoker.ahead = uint64(w.Now.UnixMilli()) // the number of the poison would never come
	l.rest(t, w)
	if after := l.list(t, w); after.Number <= uint64(w.Now.UnixMilli()) || keymgr.CheckNumber(after.Number, w.Now) != nil {
		t.Errorf("list %d is not above %d", after.Number, w.Now.UnixMilli())
	}
}
