// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/perf/netnsexec"
)

// fakeSubjects count the calls of their plugins. The second one's fail in the
// first round.
func fakeSubjects(order *[]string) []subject {
	one := func(name string, broken bool) subject {
		calls := 0
		return subject{name: name, cni: func(_ context.Context, pods, parallel int) (cniTimes, error) {
			*order = append(*order, name)
			if calls++; broken && calls == 1 {
				return cniTimes{}, errors.New("no pod today")
			}
			took := time.Duration(pods*parallel) * time.Millisecond
			return cniTimes{Add: quantiles{P50: took, P99: 2 * took}, Del: quantiles{P50: took, P99: took}}, nil
		}}
	}
	return []subject{one(wireguard, false), one(flannel, true)}
}

func TestMeasure(t *testing.T) {
	var order []string
	r := newResults(2)
	c := comparisonConfig{rounds: 2, limits: limits{adds: 7, pods: 3}}
	var progress strings.Builder
	err := r.measure(t.Context(), fakeSubjects(&order), c, &progress)
	if err == nil || !strings.Contains(err.Error(), "round 1, pods one by one of flannel VXLAN: no pod today") {
		t.Errorf("error: %v", err)
	}
	// Each step with one after the other, and the other way round in the second round.
	want := []string{wireguard, flannel, wireguard, flannel, flannel, wireguard, flannel, wireguard}
	if diff := cmp.Diff(want, order); diff != "" {
		t.Errorf("order: %s", diff)
	}
	if diff := cmp.Diff([]float64{7, 7}, r.of("cni/one/add50", wireguard)); diff != "" {
		t.Error(diff)
	}
	got := r.of("cni/one/add99", flannel)
	if !math.IsNaN(got[0]) || got[1] != 14 {
		t.Errorf("after a failure: %v, want nothing and 14", got)
	}
	if diff := cmp.Diff([]float64{9, 9}, r.of("cni/all/add50", flannel)); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(progress.String(), "round 2/2  pods at once") {
		t.Errorf("progress:\n%s", progress.String())
	}
}

func TestMeasureEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var order []string
	err := newResults(1).measure(ctx, fakeSubjects(&order), comparisonConfig{rounds: 1}, &strings.Builder{})
	if !errors.Is(err, context.Canceled) || len(order) != 0 {
		t.Errorf("got %v after %v", err, order)
	}
}

// TestEverySubjectIsMeasured: the steps that fit a subject are those that its
// columns need.
func TestEverySubjectIsMeasured(t *testing.T) {
	cluster := subject{cni: lab{}.timePods, paths: map[string]netnsexec.Path{"same": {}, "cross": {}}}
	limit := subject{paths: map[string]netnsexec.Path{"same": {}}}
	count := map[string]int{}
	for _, s := range steps() {
		if s.fits(cluster) {
			count["cluster"]++
		}
		if s.fits(limit) {
			count["limit"]++
		}
	}
	if diff := cmp.Diff(map[string]int{"cluster": 14, "limit": 6}, count); diff != "" {
		t.Error(diff)
	}
}

func TestConditions(t *testing.T) {
	c := comparisonConfig{rounds: 3, version: "v9", limits: limits{length: 2 * time.Second, adds: 200, pods: 50}}
	for _, want := range []string{"Sealane v9", "Rounds: 3; streams of 2s; 200 pods one by one, 50 at once", "flannel v0.26.7"} {
		if got := c.conditions(); !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
}

func TestRunUsage(t *testing.T) {
	for _, args := range [][]string{
		nil,
		{"help"},
		{"compare"},
		{"compare", "-wireguard=a", "-vxlan=b"},
		{"cni", "-pods=0"},
		{"cni", "x"},
		{"roundtrips"},
		{"roundtrips", "-to=[::1]:5202"},
		{"serve", "-nonsense"},
		{"compare", "-wireguard=a", "-vxlan=b", "-flannel=c", "-rounds=0"},
	} {
		if err := run(t.Context(), args); !errors.Is(err, ErrUsage) {
			t.Errorf("%q: got %v", args, err)
		}
	}
}
