// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/ca/memorystore"
	"github.com/sealane/sealane/keymgr/keytest"
)

func TestKeepRevocations(t *testing.T) {
	store, clock := memorystore.New(), keytest.NewClock()
	c := keytest.NewClusterWith(t, clock, ca.Config{Store: store, RootStore: memorystore.New(), Clock: clock.Now})
	l := revocations(t, c, c.Node("a", "10.244.1.0/24"))
	numbered := func(number uint64) keymgr.Signed {
		t.Helper()
		l.Number = number
		s, err := c.Authority.SignRevocations(l)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	expect := func(a *ca.Authority, number uint64) {
		t.Helper()
		signed, list, err := a.KeptRevocations(t.Context())
		if err != nil || list.Number != number {
			t.Fatalf("kept list %d, %v; want %d", list.Number, err, number)
		}
		if number > 0 && (len(list.Nodes) != 1 || !a.Signs(signed)) {
			t.Errorf("kept %+v", list)
		}
	}
	expect(c.Authority, 0)
	before, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to write
		if err := c.Authority.KeepRevocations(t.Context(), numbered(7)); err != nil {
			t.Fatal(err)
		}
	}
	expect(c.Authority, 7)
	if err := c.Authority.KeepRevocations(t.Context(), numbered(6)); !errors.Is(err, ca.ErrConflict) {
		t.Errorf("an earlier list: got error %v", err)
	}
	if err := c.Authority.KeepRevocations(t.Context(), keymgr.Signed{Payload: []byte("x")}); err == nil {
		t.Error("kept a list that nobody has signed")
	}
	expect(c.Authority, 7)

	if err := c.Authority.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	clock.Add(ca.DefaultIntermediateLifetime * 5 / 6) // another intermediate is due
	if err := c.Authority.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(after.Files[ca.FileIntermediateCert], before.Files[ca.FileIntermediateCert]) {
		t.Error("the intermediate was not replaced")
	}
	if len(after.Files) != len(before.Files)+1 || len(after.Files[ca.FileRevocations]) == 0 {
		t.Errorf("%d files of %d are left", len(after.Files), len(before.Files)+1)
	}
	if _, list, err := c.Authority.KeptRevocations(t.Context()); err != nil || list.Number != 7 {
		t.Errorf("with another intermediate: list %d, %v", list.Number, err)
	}

	theirs := memorystore.New()
	other := keytest.NewClusterWith(t, clock, ca.Config{Store: theirs, Clock: clock.Now}).Authority
	there, err := theirs.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	there.Files[ca.FileRevocations] = after.Files[ca.FileRevocations]
	if err := theirs.Save(t.Context(), there); err != nil {
		t.Fatal(err)
	}
	expect(other, 0)
}

// TestLargestListFitsIntoASecret, beside the authority's keys.
func TestLargestListFitsIntoASecret(t *testing.T) {
	const secret, others = 1 << 20, 64 << 10
	data, err := keymgr.EncodeSigned(keymgr.Signed{
		Payload: []byte(strings.Repeat("x", keymgr.MaxRevocations)), Signature: make([]byte, 1<<10), Chain: [][]byte{make([]byte, 4<<10)},
	})
	if err != nil || len(data) > secret-others {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}

func TestKeepRevocationsFails(t *testing.T) {
	broken := errors.New("broken")
	store := &lossyStore{Store: memorystore.New()}
	clock := keytest.NewClock()
	c := keytest.NewClusterWith(t, clock, ca.Config{Store: store, Clock: clock.Now})
	l := revocations(t, c, c.Node("a", "10.244.1.0/24"))
	signed, err := c.Authority.SignRevocations(l)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []error{broken, ca.ErrConflict} {
		store.save = want
		if err := c.Authority.KeepRevocations(t.Context(), signed); !errors.Is(err, want) {
			t.Errorf("got error %v, want %v", err, want)
		}
	}
	store.load = broken
	if err := c.Authority.KeepRevocations(t.Context(), signed); !errors.Is(err, broken) {
		t.Errorf("got error %v", err)
	}
	if _, _, err := c.Authority.KeptRevocations(t.Context()); !errors.Is(err, broken) {
		t.Errorf("got error %v", err)
	}
}
