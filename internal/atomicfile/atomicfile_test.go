// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package atomicfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sealane/sealane/internal/atomicfile"
)

// ways are the functions that replace a file.
func ways() map[string]func(string, []byte, fs.FileMode) error {
	return map[string]func(string, []byte, fs.FileMode) error{
		"synced": atomicfile.Write, "then synced": atomicfile.WriteThenSync, "unsynced": atomicfile.WriteUnsynced,
	}
}

func TestWriteReplacesContentAndPermissions(t *testing.T) {
	for name, write := range ways() {
		t.Run(name, func(t *testing.T) { replaces(t, write) })
	}
}

func replaces(t *testing.T, write func(string, []byte, fs.FileMode) error) {
	path := filepath.Join(t.TempDir(), "state.json")
	for _, step := range []struct {
		data string
		perm fs.FileMode
	}{
		{"first, the longer one", 0o644},
		{"second", 0o600},
		{"", 0o666},
	} {
		if err := write(path, []byte(step.data), step.perm); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != step.data {
			t.Errorf("content = %q, %v; want %q", got, err, step.data)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != step.perm {
			t.Errorf("mode = %v, %v; want %v", info.Mode(), err, step.perm)
		}
	}
	wantNames(t, filepath.Dir(path), "state.json")
}

func TestWriteLeavesNothingWhenItFails(t *testing.T) {
	for name, write := range ways() {
		t.Run(name, func(t *testing.T) { fails(t, write) })
	}
}

func fails(t *testing.T, write func(string, []byte, fs.FileMode) error) {
	dir := t.TempDir()
	// A directory that is not empty cannot be replaced by a file: the rename fails.
	target := filepath.Join(dir, "target")
	if err := os.MkdirAll(filepath.Join(target, "child"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := write(target, []byte("x"), 0o600); err == nil {
		t.Fatal("a directory was replaced by a file")
	}
	wantNames(t, dir, "target")

	err := write(filepath.Join(dir, "absent", "file"), nil, 0o600)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("write into an absent directory: %v; want fs.ErrNotExist", err)
	}
}

func TestReadersSeeWholeFilesOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	old, fresh := strings.Repeat("a", 1<<16), strings.Repeat("b", 1<<15)
	if err := atomicfile.Write(path, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := range 50 {
			data := old
			if i%2 == 0 {
				data = fresh
			}
			if err := atomicfile.Write(path, []byte(data), 0o600); err != nil {
				t.Error(err)
			}
		}
	})
	for range 200 {
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if s := string(got); s != old && s != fresh {
			t.Fatalf("read a mixture of %d bytes", len(got))
		}
	}
	writer.Wait()
}

func TestRemove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if err := atomicfile.Write(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to remove
		if err := atomicfile.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("file is still there: %v", err)
	}
	full := t.TempDir()
	if err := os.Mkdir(filepath.Join(full, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Remove(full); err == nil {
		t.Error("a directory that is not empty was removed")
	}
}

func TestIsTemp(t *testing.T) {
	for name, want := range map[string]bool{
		".sealane-tmp-123": true, "lease.json": false, ".hidden": false, "": false,
	} {
		if got := atomicfile.IsTemp(name); got != want {
			t.Errorf("IsTemp(%q) = %v, want %v", name, got, want)
		}
	}
}

func wantNames(t *testing.T, dir, want string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != want {
		t.Errorf("directory holds %q, want %q", got, want)
	}
}
