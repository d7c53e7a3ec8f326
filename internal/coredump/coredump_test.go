// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package coredump_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/internal/coredump"
)

func TestForbid(t *testing.T) {
	if err := coredump.Forbid(); err != nil {
		t.Fatal(err)
	}
	if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable != 0 {
		t.Errorf("dumpable: %d, %v", dumpable, err)
	}
	// What programs of ours read there: their own file, namespaces and open files.
	if _, err := os.Executable(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"/proc/self/ns/net", "/proc/thread-self/ns/net", "/proc/self/exe"} {
		f, err := os.Open(name)
		if err != nil {
			t.Error(err)
			continue
		}
		f.Close()
	}
	if _, err := os.ReadDir("/proc/self/fd"); err != nil {
		t.Error(err)
	}
}

// TestProgramsWithKeysForbidIt before they read any.
func TestProgramsWithKeysForbidIt(t *testing.T) {
	for _, program := range []string{"sealaned", "sealane-controller", "sealane-wireguard"} {
		src, err := os.ReadFile(filepath.Join("..", "..", "cmd", program, "main.go"))
		if err != nil {
			t.Fatal(err)
		}
		if _, body, _ := strings.Cut(string(src), "\nfunc main() {"); !strings.Contains(body, "coredump.Forbid()") {
			t.Errorf("cmd/%s does not forbid core dumps", program)
		}
	}
}
