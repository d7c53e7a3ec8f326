// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package backoff

import (
	"testing"
	"time"
)

func TestPausesDouble(t *testing.T) {
	for _, tt := range []struct {
		most time.Duration
		want []time.Duration
	}{
		{5 * time.Second, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second}},
		{0, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}},
	} {
		b := Backoff{First: time.Second, Max: tt.most}
		for range 2 {
			for i, want := range tt.want {
				if got := b.Next(); got != want {
					t.Errorf("at most %v: pause %d is %v, want %v", tt.most, i, got, want)
				}
			}
			b.Reset()
		}
	}
}

func TestJitterKeepsHalf(t *testing.T) {
	for range 1000 {
		if got := Jitter(10); got < 5 || got > 10 {
			t.Fatalf("10 became %d, want 5 to 10", got)
		}
	}
}
