// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/ca/memorystore"
	"github.com/sealane/sealane/keymgr/keytest"
)

func TestRootGoesOfflineAndComesBack(t *testing.T) {
	f := newFleet(t, 1)
	a, ctx := f.open(), t.Context()
	export, err := ca.ExportRoot(ctx, f.roots)
	if err != nil {
		t.Fatal(err)
	}
	if root, err := ca.ParseExport(export); err != nil || !root.Equal(rootOf(t, a)) {
		t.Fatalf("export holds %v, %v", root, err)
	}
	if err := ca.RemoveRootKey(ctx, f.roots, append(bytes.Clone(export), '\n')); !errors.Is(err, ca.ErrExport) {
		t.Errorf("removed by another export: %v", err)
	}
	if err := ca.RemoveRootKey(ctx, f.roots, export); err != nil {
		t.Fatal(err)
	}
	for _, files := range []map[string][]byte{f.files(), must(f.roots.Load(ctx)).Files} {
		for name, data := range files {
			if name != ca.FileIntermediateKey && bytes.Contains(data, []byte("PRIVATE KEY")) {
				t.Errorf("%s holds a private key still", name)
			}
		}
	}
	if _, err := ca.ExportRoot(ctx, f.roots); !errors.Is(err, ca.ErrRootOffline) {
		t.Errorf("exported twice: %v", err)
	}
	if err := a.Renew(ctx); err != nil {
		t.Fatal(err)
	}
	if s, err := a.Status(); err != nil || !s.RootOffline || s.RootWanted {
		t.Errorf("status %+v, %v", s, err)
	}
	f.clock.Add(ca.DefaultIntermediateLifetime * 3 / 4)
	before := f.issue(a)[1]
	if err := a.Renew(ctx); err != nil {
		t.Fatal(err)
	}
	if s, err := a.Status(); err != nil || !s.RootWanted {
		t.Errorf("the root is not said to be wanted: %+v, %v", s, err)
	}
	if err := ca.ImportRoot(ctx, f.roots, export); err != nil {
		t.Fatal(err)
	}
	if err := a.Renew(ctx); err != nil {
		t.Fatal(err)
	}
	if s, err := a.Status(); err != nil || s.RootOffline || s.RootWanted || bytes.Equal(before, f.issue(a)[1]) {
		t.Errorf("status with the root back: %+v, %v", s, err)
	}
	if again, err := ca.ExportRoot(ctx, f.roots); err != nil || !bytes.Equal(again, export) {
		t.Errorf("the second export differs: %v", err)
	}
}

func must(s ca.Stored, err error) ca.Stored {
	if err != nil {
		panic(err)
	}
	return s
}

// A change of roots needs nothing of the old one, which may stay where it is.
func TestRotationOfOfflineRoot(t *testing.T) {
	f := newFleet(t, 2)
	ctx := t.Context()
	export, err := ca.ExportRoot(ctx, f.roots)
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.RemoveRootKey(ctx, f.roots, export); err != nil {
		t.Fatal(err)
	}
	a := f.open()
	f.clock.Add(time.Hour)
	f.request = f.clock.Now()
	f.advance(a)
	if _, err := ca.ExportRoot(ctx, f.roots); !errors.Is(err, ca.ErrExport) {
		t.Errorf("exported while a change of roots is under way: %v", err)
	}
	f.untilSteady(a)
	if s, err := a.Status(); err != nil || s.RootOffline {
		t.Errorf("status %+v, %v", s, err)
	}
	if err := ca.ImportRoot(ctx, f.roots, export); !errors.Is(err, ca.ErrExport) {
		t.Errorf("the former root was imported: %v", err)
	}
}

func TestExportRefusals(t *testing.T) {
	f, other := newFleet(t, 0), newFleet(t, 0)
	ctx := t.Context()
	if _, err := ca.ExportRoot(ctx, memorystore.New()); !errors.Is(err, ca.ErrExport) {
		t.Errorf("exported nothing: %v", err)
	}
	mine, err := ca.ExportRoot(ctx, f.roots)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := ca.ExportRoot(ctx, other.roots)
	if err != nil {
		t.Fatal(err)
	}
	stored := must(f.roots.Load(ctx)).Files
	strange := must(other.roots.Load(ctx)).Files
	for name, bad := range map[string][]byte{
		"nothing": nil, "text": []byte("x"), "no key": stored[ca.FileRootCert], "no certificate": stored[ca.FileRootKey],
		"key of another": append(bytes.Clone(stored[ca.FileRootCert]), strange[ca.FileRootKey]...),
		"two":            append(bytes.Clone(mine), foreign...), "another root": foreign, "long": make([]byte, 1<<17),
	} {
		if err := ca.ImportRoot(ctx, f.roots, bad); !errors.Is(err, ca.ErrExport) {
			t.Errorf("%s: error %v, want ErrExport", name, err)
		}
	}
	if err := ca.ImportRoot(ctx, memorystore.New(), mine); !errors.Is(err, ca.ErrExport) {
		t.Errorf("imported where no root is: %v", err)
	}
}

func FuzzParseExport(f *testing.F) {
	roots := memorystore.New()
	clock := keytest.NewClock()
	if _, err := ca.Open(f.Context(), ca.Config{TrustDomain: "td", Store: memorystore.New(), RootStore: roots, Clock: clock.Now}); err != nil {
		f.Fatal(err)
	}
	export, err := ca.ExportRoot(f.Context(), roots)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(export)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if root, err := ca.ParseExport(data); (root == nil) == (err == nil) {
			t.Errorf("root %v, error %v", root, err)
		}
	})
}
