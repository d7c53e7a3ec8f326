// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// folder makes a folder of files with these contents.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func wantFiles(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got[e.Name()] = string(data)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("plugins (-want +got):\n%s", diff)
	}
}

// TestHostsPluginsAreLeftAlone: a node with an old portmap gets ours beside it, and each
// version of ours replaces the one before. Uninstalling leaves what the host had.
func TestHostsPluginsAreLeftAlone(t *testing.T) {
	image := map[string]string{"sealane-cni": "new", "portmap": "new", "loopback": "new"}
	host := map[string]string{"sealane-cni": "old", "sealane-portmap": "old", "portmap": "the host's", "loopback": "the host's"}
	bin := folder(t, host)
	if err := Install(folder(t, image), bin, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	want := maps.Clone(host)
	want["sealane-cni"], want["sealane-portmap"] = "new", "new"
	wantFiles(t, bin, want)
	for range 2 {
		if err := removePlugins(bin); err != nil {
			t.Fatal(err)
		}
	}
	wantFiles(t, bin, map[string]string{"portmap": "the host's", "loopback": "the host's"})

	bin = folder(t, nil)
	if err := Install(folder(t, image), bin, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, bin, map[string]string{"sealane-cni": "new", "sealane-portmap": "new", "loopback": "new"})
	if info, err := os.Stat(filepath.Join(bin, "sealane-portmap")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
}

// TestOurPluginComesAfterTheOneItCalls: otherwise a pod that starts in between would miss it.
func TestOurPluginComesAfterTheOneItCalls(t *testing.T) {
	bin := folder(t, map[string]string{"sealane-cni": "old"})
	from := folder(t, map[string]string{"sealane-cni": "new", "loopback": "new"})
	if err := Install(from, bin, slog.New(slog.DiscardHandler)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without portmap: %v", err)
	}
	wantFiles(t, bin, map[string]string{"sealane-cni": "old"})
}
