// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package status

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

const day = 24 * time.Hour

// Duration gives a length of time as people say it: one unit, and large enough
// for two figures where possible. The sign is left out.
func Duration(d time.Duration) string {
	d = d.Abs()
	switch {
	case d < 2*time.Minute:
		return strconv.Itoa(int(d/time.Second)) + "s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + "m"
	case d < 2*day:
		return strconv.Itoa(int(d/time.Hour)) + "h"
	case d < 2*365*day:
		return strconv.Itoa(int(d/day)) + "d"
	}
	return strconv.Itoa(int(d/(365*day))) + "y"
}

// Ago gives t as seen from now: "12s ago", "in 6d", "never" for the zero time.
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

// Bytes gives an amount of data in binary units (IEC 80000-13).
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

func plural(n uint64, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.FormatUint(n, 10) + " " + noun
}

// longest is how much of a text from elsewhere is shown, in characters.
const longest = 400

// printable makes a text that came from elsewhere fit for a terminal: one line,
// no control sequences, not endless.
func printable(s string) string {
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

// String gives kind and backend, "wireguard (kernel)".
func (l Lane) String() string {
	if l.Backend == "" {
		return l.Kind
	}
	return l.Kind + " (" + string(l.Backend) + ")"
}

// String gives addresses and device.
func (l Leak) String() string {
	return fmt.Sprintf("%s > %s on %s", l.Source, l.Destination, l.Device)
}
