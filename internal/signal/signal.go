// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package signal tells a goroutine that there is something to look at, without
// waiting for it.
package signal

// Signal is raised or not, however often it was raised before somebody received it.
// It is a channel, so that a select can wait for it. Make it with [New].
type Signal chan struct{}

// New returns a Signal that is not raised.
func New() Signal { return make(Signal, 1) }

// Raise raises the signal and never blocks.
func (s Signal) Raise() {
	select {
	case s <- struct{}{}:
	default: // it is raised already
	}
}
