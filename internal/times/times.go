// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package times compares points in time and formats them for messages.
package times

import "time"

// Earlier returns the earlier of a and b.
func Earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// Later returns the later of a and b.
func Later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Clamp returns the point between low and high that is nearest to t.
func Clamp(t, low, high time.Time) time.Time {
	if t.Before(low) {
		return low
	}
	return Earlier(t, high)
}

// Stamp formats t for an error or a log line: UTC, to the second (RFC 3339).
func Stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
