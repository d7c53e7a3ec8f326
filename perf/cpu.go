// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// userHZ is the unit of /proc/stat, the same on every Linux that Go runs on.
const userHZ = 100

// busyTime returns the time that all processors together have spent on work,
// soft interrupts included, since the machine started.
func busyTime() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseBusy(string(text))
}

// parseBusy reads the first line of /proc/stat: user, nice, system, idle, iowait, irq,
// softirq. The fields after them are the time that went to other machines, or to guests of
// this one, which is part of user already.
func parseBusy(stat string) (time.Duration, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, fmt.Errorf("%w: %q", ErrProcStat, line)
	}
	var ticks uint64
	for i, field := range fields[1:8] {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%w: %q: %w", ErrProcStat, line, err)
		}
		if idle := i == 3 || i == 4; !idle {
			ticks += n
		}
	}
	return time.Duration(ticks) * time.Second / userHZ, nil
}

// cpuPerGB returns the processor seconds per 10^9 bytes of a transfer that took
// wall and during which the machine was busy for busy; idle is the share of the
// wall time for which it is busy (more than 1 with several processors) when nothing is
// transferred.
func cpuPerGB(busy, wall time.Duration, idle, bytes float64) float64 {
	return max(0, busy.Seconds()-idle*wall.Seconds()) / (bytes / 1e9)
}
