// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package status

import (
	"slices"
	"time"
)

// Enforcement is how NetworkPolicies and Services fare in a node's data path.
type Enforcement struct {
	Enforcing bool   `json:"enforcing"`         // what an earlier daemon left has been replaced by what is right
	Problem   string `json:"problem,omitempty"` // what the data path lacks, in words; what it lacks is denied
	// What the data path should have: entries of each table.
	Identities int `json:"identities"` // addresses of pods, of the whole cluster
	Blocks     int `json:"blocks"`     // prefixes that ipBlocks mention
	Guards     int `json:"guards"`     // addresses of this node's pods
	Sets       int `json:"sets"`
	Rules      int `json:"rules"`
	PortSets   int `json:"portSets"`
	Frontends  int `json:"frontends"` // addresses and ports of services that somebody answers
	Backends   int `json:"backends"`
	// Waiting is how many pods cannot be connected yet, because their policies
	// are not known or not written.
	Waiting int `json:"waiting"`
	// RefusedPods is how many pods claim an address that their node cannot give.
	RefusedPods  int       `json:"refusedPods"`
	Writes       uint64    `json:"writes"` // of differences and of wholes
	FailedWrites uint64    `json:"failedWrites"`
	Written      time.Time `json:"written,omitzero"` // when something was written last
	LastWrite    float64   `json:"lastWriteSeconds"` // how long compiling and writing took then
	Delay        Histogram `json:"delay"`            // seconds from the arrival of a change until it was written
}

// Histogram counts values in the buckets of DelayBounds.
type Histogram struct {
	Counts []uint64 `json:"counts,omitempty"` // of each bucket alone, and last of what is above all bounds
	Sum    float64  `json:"sum"`
}

// DelayBounds returns the upper bounds of the buckets of a Histogram, in seconds.
func DelayBounds() []float64 {
	return []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}
}

// Observe counts a value.
func (h *Histogram) Observe(value float64) {
	bounds := DelayBounds()
	if h.Counts == nil {
		h.Counts = make([]uint64, len(bounds)+1)
	}
	bucket, _ := slices.BinarySearch(bounds, value)
	h.Counts[bucket]++
	h.Sum += value
}
