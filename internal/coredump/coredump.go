// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package coredump keeps the memory of a process that holds keys off the disk.
package coredump

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Forbid makes the kernel write no core dump of this process, and lets no other process of the
// same user attach to it or read its memory. Programs that it starts are as they were. The
// process itself still reaches /proc/self, whose files now belong to root.
func Forbid() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	return nil
}
