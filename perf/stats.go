// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"math"
	"slices"
	"time"
)

// quantiles is what is kept of many durations.
type quantiles struct {
	Count    int
	P50, P99 time.Duration
}

// quantilesOf sorts all, which must not be empty for the result to mean anything.
func quantilesOf(all []time.Duration) quantiles {
	slices.Sort(all)
	return quantiles{Count: len(all), P50: percentile(all, 50), P99: percentile(all, 99)}
}

// percentile returns the least value that p of 100 sorted values do not exceed
// (nearest rank), or zero if there are none. It never invents a value that was
// not measured.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := (len(sorted)*p + 99) / 100
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// spread is the middle of some values, and how far they go.
type spread struct {
	Median, Min, Max float64
	Count            int
}

// spreadOf leaves out what was not measured (NaN).
func spreadOf(values []float64) spread {
	known := slices.DeleteFunc(slices.Clone(values), math.IsNaN)
	if len(known) == 0 {
		return spread{Median: math.NaN(), Min: math.NaN(), Max: math.NaN()}
	}
	slices.Sort(known)
	middle := len(known) / 2
	median := known[middle]
	if len(known)%2 == 0 {
		median = (known[middle-1] + known[middle]) / 2
	}
	return spread{Median: median, Min: known[0], Max: known[len(known)-1], Count: len(known)}
}

// ratios divides round by round, so that what slowed both sides of a round down
// cancels out. A round that lacks a side, or has nothing to divide by, is NaN.
func ratios(a, b []float64) []float64 {
	out := make([]float64, min(len(a), len(b)))
	for i := range out {
		out[i] = math.NaN()
		if b[i] != 0 {
			out[i] = a[i] / b[i]
		}
	}
	return out
}
