// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package times

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Boot returns when the clock by which eBPF programs count (CLOCK_MONOTONIC) was zero.
func Boot() (time.Time, error) {
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &since); err != nil {
		return time.Time{}, fmt.Errorf("read clock: %w", err)
	}
	return time.Now().Add(-time.Duration(since.Nano())), nil
}
