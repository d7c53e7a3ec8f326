// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr"
)

// TestNewLeaderForgetsNoRevokedKey: of a readmitted node no order tells the old
// keys, and after an hour no request does.
func TestNewLeaderForgetsNoRevokedKey(t *testing.T) {
	for name, tamper := range map[string]func(w *world, old kube.RevocationRecord){
		"deleted":  func(w *world, _ kube.RevocationRecord) { w.record = kube.RevocationRecord{} },
		"emptied":  func(w *world, _ kube.RevocationRecord) { w.record.List, w.record.CRL = nil, nil },
		"put back": func(w *world, old kube.RevocationRecord) { w.record.List, w.record.CRL = old.List, old.CRL },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.addNode("n1", "u1", "10.244.1.0/24")
			l := newLeader(t, w)
			first := w.ask("n1", newKey(t))
			l.rest(t, w)
			w.publish("n1", w.request(first).Certificate)
			old := w.record
			w.order("n1", keymgr.ReasonKeyCompromise)
			l.rest(t, w)
			w.orders = nil
			l.rest(t, w)
			before := l.list(t, w)

			w.now, w.requests = w.now.Add(2*time.Hour), nil
			tamper(w, old)
			if w.record.Version != "" {
				w.record.Version += "-tampered"
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

// brokenVault fails as told.
type brokenVault struct {
	Vault
	open, keep error
}

func (v *brokenVault) KeptRevocations(ctx context.Context) (keymgr.Signed, keymgr.RevocationList, error) {
	if v.open != nil {
		return keymgr.Signed{}, keymgr.RevocationList{}, v.open
	}
	return v.Vault.KeptRevocations(ctx)
}

func (v *brokenVault) KeepRevocations(ctx context.Context, s keymgr.Signed) error {
	if v.keep != nil {
		return v.keep
	}
	return v.Vault.KeepRevocations(ctx, s)
}

func TestVaultFails(t *testing.T) {
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	w.order("n1", keymgr.ReasonKeyCompromise)
	l := newLeader(t, w)
	v := &brokenVault{Vault: l.revoker.vault, open: errAway, keep: errAway}
	l.revoker.vault = v
	if err := l.revoker.pass(t.Context()); !errors.Is(err, errAway) || w.writes != 0 {
		t.Errorf("before it is known what was kept: got error %v, %d writes", err, w.writes)
	}
	v.open = nil
	if err := l.revoker.pass(t.Context()); !errors.Is(err, errAway) {
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

// TestLaterListIsKept: another controller was leading meanwhile.
func TestLaterListIsKept(t *testing.T) {
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	first := newLeader(t, w)
	first.rest(t, w)
	list := first.list(t, w)
	list.Number += 1_000_000 // its clock is ahead
	signed, err := first.revoker.registrar.SignRevocations(list)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.revoker.vault.KeepRevocations(t.Context(), signed); err != nil {
		t.Fatal(err)
	}
	w.order("n1", keymgr.ReasonKeyCompromise)
	if err := first.revoker.pass(t.Context()); err == nil {
		t.Error("an earlier list was kept")
	}
	first.rest(t, w)
	after := first.list(t, w)
	if entry, _ := after.Node("u1"); !entry.Blocked || after.Number <= list.Number {
		t.Errorf("list %d after %d: %+v", after.Number, list.Number, after.Nodes)
	}
}
