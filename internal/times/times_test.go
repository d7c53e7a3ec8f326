// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package times_test

import (
	"testing"
	"time"

	"github.com/sealane/sealane/internal/times"
)

func TestCompare(t *testing.T) {
	one, two, three := time.Unix(1, 0), time.Unix(2, 0), time.Unix(3, 0)
	for _, tc := range []struct {
		name      string
		got, want time.Time
	}{
		{"earlier", times.Earlier(one, two), one},
		{"earlier, the other way round", times.Earlier(two, one), one},
		{"later", times.Later(one, two), two},
		{"later, the other way round", times.Later(two, one), two},
		{"clamp below", times.Clamp(one, two, three), two},
		{"clamp within", times.Clamp(two, one, three), two},
		{"clamp above", times.Clamp(three, one, two), two},
	} {
		if !tc.got.Equal(tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, tc.got, tc.want)
		}
	}
}

func TestStamp(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))
	if got, want := times.Stamp(at), "2026-01-02T02:04:05Z"; got != want {
		t.Errorf("Stamp is %s, want %s", got, want)
	}
}
