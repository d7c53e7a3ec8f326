// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package words

import (
	"testing"
	"time"
)

var now = time.Date(2026, 8, 22, 12, 0, 0, 0, time.UTC)

func TestAgo(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s ago": 0, "119s ago": 119 * time.Second, "2m ago": 2 * time.Minute, "119m ago": 2*time.Hour - 1,
		"2h ago": 2 * time.Hour, "47h ago": 47 * time.Hour, "2d ago": 48 * time.Hour, "729d ago": 729 * Day, "2y ago": 730 * Day,
		"in 1s": -1500 * time.Millisecond, "in 6d": -6*Day - time.Hour, "in 10y": -3655 * Day,
	} {
		if got := Ago(now, now.Add(-d)); got != want {
			t.Errorf("Ago(%v) = %q, want %q", d, got, want)
		}
	}
	if got := Ago(now, time.Time{}); got != "never" {
		t.Errorf("Ago(zero) = %q", got)
	}
	if got := Ago(time.Time{}, now); got != "2026-08-22T12:00:00Z" {
		t.Errorf("Ago without a clock = %q", got)
	}
}

func TestBytes(t *testing.T) {
	for want, n := range map[string]uint64{
		"0 B": 0, "1023 B": 1023, "1.0 KiB": 1024, "999.9 KiB": 1023898, "1.0 MiB": 1023950, "1.5 GiB": 3 << 29, "16.0 EiB": 1<<64 - 1,
	} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}
