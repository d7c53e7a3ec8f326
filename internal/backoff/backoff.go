// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package backoff spaces repeated attempts.
package backoff

import (
	"math/rand/v2"
	"time"
)

// Backoff returns pauses that double.
type Backoff struct {
	First time.Duration // the first pause
	Max   time.Duration // the longest pause; 0 means no limit

	last time.Duration
}

// Next returns the pause before the next attempt.
func (b *Backoff) Next() time.Duration {
	b.last = max(b.First, 2*b.last)
	if b.Max > 0 {
		b.last = min(b.last, b.Max)
	}
	return b.last
}

// Reset makes the next pause the first one again.
func (b *Backoff) Reset() { b.last = 0 }

// Jitter returns between a half and the whole of a pause, at random, so that the nodes of a
// cluster do not try in step.
func Jitter(pause time.Duration) time.Duration { return pause/2 + rand.N(pause/2+1) }
