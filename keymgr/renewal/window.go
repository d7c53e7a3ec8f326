// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package renewal says when nodes renew certificates, so that not all do so at once.
package renewal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/sealane/sealane/internal/times"
)

const (
	maxWindow = 1 << 10
	// renewalsPerSecond is how many nodes of a cluster renew in a second.
	renewalsPerSecond = 5
	// leastSpan is the shortest window, for clusters of a few nodes.
	leastSpan = 5 * time.Second
)

// Window is when nodes renew certificates that lead to another root than this one. Each
// node renews at a moment of its own, so that not all ask at once (the idea of RFC 9773).
type Window struct {
	// Root is the subject key identifier of the root to move to, in hexadecimal.
	Root string    `json:"root"`
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Span returns the time over which a number of nodes spread something that each does once.
func Span(nodes int) time.Duration {
	return max(leastSpan, time.Duration(nodes)*time.Second/renewalsPerSecond)
}

// Draw picks a duration in [0, span) that follows from seed alone, so that a restart
// does not draw again. Seeds spread evenly.
func Draw(seed string, span time.Duration) time.Duration {
	h := sha256.Sum256([]byte(seed))
	fraction := float64(binary.BigEndian.Uint32(h[:])) / (1 << 32)
	return time.Duration(fraction * float64(span))
}

// ParseWindow reads a window.
func ParseWindow(data []byte) (Window, error) {
	if len(data) > maxWindow {
		return Window{}, fmt.Errorf("%w: %d bytes, at most %d", ErrWindow, len(data), maxWindow)
	}
	var w Window
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&w); err != nil {
		return Window{}, fmt.Errorf("%w: %w", ErrWindow, err)
	}
	if dec.More() {
		return Window{}, fmt.Errorf("%w: data after the object", ErrWindow)
	}
	if id, err := hex.DecodeString(w.Root); err != nil || len(id) == 0 {
		return Window{}, fmt.Errorf("%w: root %q is no key identifier", ErrWindow, w.Root)
	}
	if w.From.IsZero() || w.To.Before(w.From) {
		return Window{}, fmt.Errorf("%w: from %s to %s", ErrWindow, times.Stamp(w.From), times.Stamp(w.To))
	}
	return w, nil
}

// Encode returns what ParseWindow reads.
func (w Window) Encode() ([]byte, error) {
	data, err := json.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("encode window: %w", err)
	}
	return data, nil
}

// Moment returns when the holder of a certificate renews it. The seed must be different for
// each holder; take it from the certificate.
func (w Window) Moment(seed string) time.Time {
	return w.From.Add(Draw(w.Root+seed, w.To.Sub(w.From)))
}
