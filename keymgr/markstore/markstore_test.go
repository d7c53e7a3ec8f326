// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package markstore_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/keytest"
	"github.com/sealane/sealane/keymgr/markstore"
)

func TestMarks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "peers")
	m := markstore.New(dir)
	if got, err := m.Load(); err != nil || len(got) != 0 {
		t.Fatalf("Load of nothing gave %v, %v", got, err)
	}
	want := keymgr.Record{
		ID: keytest.ID("a"), Seq: 7, Hash: keymgr.HashPayload([]byte("x")), LowGeneration: 3, HighGeneration: 4,
		Expires:   time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		Statement: keymgr.Signed{Payload: []byte("p"), Signature: []byte("s"), Chain: [][]byte{{1}, {2}}},
	}
	if err := m.Save(want); err != nil {
		t.Fatal(err)
	}
	got, err := m.Load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]keymgr.Record{want}, got); diff != "" {
		t.Errorf("record (-saved +loaded):\n%s", diff)
	}
	if info, err := os.Stat(filepath.Join(dir, want.ID.UID+".json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v; want 0600", info.Mode(), err)
	}
	for _, uid := range []string{want.ID.UID, want.ID.UID} {
		if err := m.Delete(uid); err != nil {
			t.Errorf("Delete: %v", err)
		}
	}
	if err := m.Save(keymgr.Record{ID: keymgr.NodeID{Name: "a", UID: "../evil"}}); err == nil {
		t.Error("Save took a UID that is a path")
	}
}
