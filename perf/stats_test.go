// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	tests := []struct {
		name   string
		sorted []time.Duration
		p      int
		want   time.Duration
	}{
		{"of nothing", nil, 50, 0},
		{"of one", []time.Duration{7}, 99, 7},
		{"median of two is the lower", []time.Duration{1, 9}, 50, 1},
		{"p99 of two is the upper", []time.Duration{1, 9}, 99, 9},
		{"median of three", []time.Duration{1, 2, 9}, 50, 2},
		{"p50 of a hundred", hundred, 50, 50},
		{"p99 of a hundred", hundred, 99, 99},
		{"p0 is the least", hundred, 0, 1},
		{"p100 is the greatest", hundred, 100, 100},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := percentile(tt.sorted, tt.p); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

// TestPercentileRank checks the definition: at least p of 100 values are not above
// the result, and fewer are below it.
func TestPercentileRank(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		values := make([]time.Duration, 1+random.IntN(300))
		for i := range values {
			values[i] = time.Duration(random.IntN(50))
		}
		q := quantilesOf(values)
		for p, got := range map[int]time.Duration{50: q.P50, 99: q.P99} {
			below, upTo := 0, 0
			for _, v := range values {
				if v < got {
					below++
				}
				if v <= got {
					upTo++
				}
			}
			if upTo*100 < p*len(values) || below*100 >= p*len(values) || !slices.Contains(values, got) {
				t.Fatalf("p%d of %v is %d", p, values, got)
			}
		}
	}
}

func TestSpread(t *testing.T) {
	nan := math.NaN()
	tests := []struct {
		name   string
		values []float64
		want   spread
	}{
		{"nothing", nil, spread{nan, nan, nan, 0}},
		{"nothing known", []float64{nan, nan}, spread{nan, nan, nan, 0}},
		{"one", []float64{3}, spread{3, 3, 3, 1}},
		{"odd", []float64{9, 1, 2}, spread{2, 1, 9, 3}},
		{"even", []float64{4, 1, 2, 9}, spread{3, 1, 9, 4}},
		{"a round missing", []float64{4, nan, 2}, spread{3, 2, 4, 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := slices.Clone(tt.values)
			if diff := cmp.Diff(tt.want, spreadOf(tt.values), cmpopts.EquateNaNs()); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(before, tt.values, cmpopts.EquateNaNs()); diff != "" {
				t.Errorf("it changed its input: %s", diff)
			}
		})
	}
}

func TestRatios(t *testing.T) {
	nan := math.NaN()
	got := ratios([]float64{1, 4, nan, 5, 7}, []float64{2, 2, 1, 0, nan})
	if diff := cmp.Diff([]float64{0.5, 2, nan, nan, nan}, got, cmpopts.EquateNaNs()); diff != "" {
		t.Error(diff)
	}
}

// TestRatiosCancelDrift: a machine that gets slower with each round changes the
// values, not the ratio.
func TestRatiosCancelDrift(t *testing.T) {
	a, b := []float64{30, 20, 10}, []float64{60, 40, 20}
	if got := spreadOf(ratios(a, b)); got.Min != 0.5 || got.Max != 0.5 {
		t.Errorf("got %+v", got)
	}
}
