// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package words

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Day is 24 hours.
const Day = 24 * time.Hour

// Duration returns a length of time as people say it: in one unit, large enough for
// two figures where possible, without sign.
func Duration(d time.Duration) string {
	d = d.Abs()
	switch {
	case d < 2*time.Minute:
		return strconv.Itoa(int(d/time.Second)) + "s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + "m"
	case d < 2*Day:
		return strconv.Itoa(int(d/time.Hour)) + "h"
	case d < 2*365*Day:
		return strconv.Itoa(int(d/Day)) + "d"
	}
	return strconv.Itoa(int(d/(365*Day))) + "y"
}

// Ago returns t as seen from now: "12s ago", "in 6d", "never" for the zero time.
func Ago(now, t time.Time) string {
	switch {
	case t.IsZero():
		return "never"
	case now.IsZero(): // a report without a clock
		return t.UTC().Format(time.RFC3339)
	case t.After(now):
		return "in " + Duration(t.Sub(now))
	}
	return Duration(now.Sub(t)) + " ago"
}

// Bytes returns an amount of data in binary units (IEC 80000-13).
func Bytes(n uint64) string {
	const unit = 1024
	if n < unit {
		return strconv.FormatUint(n, 10) + " B"
	}
	value, i := float64(n)/unit, 0
	for value >= 999.95 && i < 5 { // would print as 1000.0
		value, i = value/unit, i+1
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTPE"[i])
}

// Plural returns a number with its noun: "1 packet", "2 packets".
func Plural(n uint64, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.FormatUint(n, 10) + " " + noun
}

// longest is the length, in characters, at which Printable cuts a text.
const longest = 400

// Printable makes a text from elsewhere safe for a terminal: one line, without
// control sequences, of limited length. Characters that cannot be printed become "?".
func Printable(s string) string {
	runes := []rune(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s))
	if len(runes) > longest {
		return string(runes[:longest-1]) + "…"
	}
	return string(runes)
}

// Past reports whether t is set and before now.
func Past(now, t time.Time) bool { return !t.IsZero() && t.Before(now) }
