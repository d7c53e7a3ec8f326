// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestMain captures the wire during everything: whatever a test does, no packet
// between nodes may show a pod's address.
func TestMain(m *testing.M) {
	if os.Getenv("SEALANE_E2E_UNINSTALL") == "1" {
		os.Exit(m.Run()) // nobody guards the wire once Sealane is gone, and the hosts still look for the pods
	}
	code, err := guarded(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		code = 1
	}
	os.Exit(code)
}

func guarded(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "sealane-e2e-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	leaks, err := listen(filepath.Join(dir, "leaks.pcap"), podNets)
	if err != nil {
		return 1, err
	}
	code := m.Run()
	seen, err := leaks.stop()
	switch {
	case err != nil:
		return 1, err
	case seen != "":
		return 1, fmt.Errorf("packets with a pod's address in clear between the nodes:\n%s", tail(seen))
	}
	fmt.Println("wire: no packet with a pod's address in clear")
	return code, nil
}
