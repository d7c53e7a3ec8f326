// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package status

import (
	"slices"
	"time"
)

// Enforcement is the state of NetworkPolicies and Services in a node's data path.
type Enforcement struct {
	// Enforcing is set once the data path holds the policies and services of the API.
	// Before, it holds what an earlier daemon left.
	Enforcing bool `json:"enforcing"`
	// Problem says in words what the data path lacks, empty if nothing. It denies the
	// traffic that the missing entries would allow.
	Problem string `json:"problem,omitempty"`
	// The number of entries that each table of the data path should hold.
	Identities       int `json:"identities"`       // addresses of all pods of the cluster
	Blocks           int `json:"blocks"`           // prefixes that ipBlocks mention
	EndpointPolicies int `json:"endpointPolicies"` // addresses of this node's pods
	Sets             int `json:"sets"`
	Rules            int `json:"rules"`
	PortSets         int `json:"portSets"`
	Frontends        int `json:"frontends"` // addresses and ports of services that have a backend
	Backends         int `json:"backends"`
	// Waiting is the number of pods that wait for their network until their policies
	// are known and written.
	Waiting int `json:"waiting"`
	// RefusedPods is the number of pods that claim an address outside the pod ranges
	// of their node.
	RefusedPods  int    `json:"refusedPods"`
	Writes       uint64 `json:"writes"`       // full and incremental, since the daemon started
	FailedWrites uint64 `json:"failedWrites"` // those of Writes that failed at least in part
	// Written is when something was last written; zero: never.
	Written time.Time `json:"written,omitzero"`
	// LastWrite is how long the last compilation and write took, in seconds.
	LastWrite float64 `json:"lastWriteSeconds"`
	// Delay counts the times from the arrival of a change until it was written, in
	// seconds.
	Delay Histogram `json:"delay"`
}

// Histogram counts values in buckets, whose upper bounds DelayBounds returns.
type Histogram struct {
	// Counts holds the number of values in each bucket alone; the last element counts
	// those above all bounds. Empty: no values.
	Counts []uint64 `json:"counts,omitempty"`
	Sum    float64  `json:"sum"` // of all values
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
