// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/sealane/sealane/internal/nettest"
)

func openRoot(t *testing.T, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func TestClosureNamesWhatIsMissing(t *testing.T) {
	if _, err := closure(openRoot(t, t.TempDir()), "usr/sbin/nft", "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("closure of a missing program: %v", err)
	}
	dir := t.TempDir()
	shell, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	place(t, dir, file{path: "bin/sh", mode: 0o755, content: shell})
	_, err = closure(openRoot(t, dir), "bin/sh", "x")
	if !errors.Is(err, errNoLibrary) || !strings.Contains(err.Error(), "bin/sh needs lib") {
		t.Errorf("closure without libraries: %v", err)
	}
}

// TestPrivilegedClosureRuns changes its root to nothing but the skeleton and
// nft's closure, and lets nft parse a rule with a protocol's name in it.
func TestPrivilegedClosureRuns(t *testing.T) {
	nettest.Privileged(t)
	root := openRoot(t, "/")
	files, err := closure(root, "usr/sbin/nft", triplets[runtime.GOARCH])
	if err != nil {
		t.Fatal(err)
	}
	protocols := file{path: "etc/protocols", mode: 0o644, content: []byte("udp 17 UDP\n")}
	dir := t.TempDir()
	for _, f := range append(append(skeleton(), protocols), files...) {
		place(t, dir, f)
	}
	if err := os.WriteFile(dir+"/rules", []byte("table ip t {\nchain c {\nmeta l4proto udp accept\n}\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	ns := nettest.NewNS(t)
	out, err := ns.Try("chroot", dir, "/usr/sbin/nft", "--check", "--file", "/rules")
	if err != nil {
		t.Errorf("nft --check: %v\n%s", err, out)
	}
	var exit *exec.ExitError
	if _, err := ns.Try("chroot", dir, "/usr/sbin/nft", "nonsense"); !errors.As(err, &exit) {
		t.Errorf("nft nonsense: %v, want an exit status", err)
	}
}
