// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package nettest

import (
	"testing"

	"golang.org/x/sys/unix"
)

// BPFFS mounts a bpf file system for this test alone and returns its path. The mount, and
// every pin in it, ends with the test.
func BPFFS(t testing.TB) string {
	t.Helper()
	Privileged(t)
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=0700"); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount bpffs: %v", err)
		}
	})
	return dir
}
