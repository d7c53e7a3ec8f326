// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"errors"
	"math"
	"testing"
	"time"
)

func TestParseBusy(t *testing.T) {
	tests := []struct {
		name, stat string
		want       time.Duration
		fails      bool
	}{
		{name: "idle, iowait and steal do not count", stat: "cpu  100 10 200 5000 700 30 60 900 0 0\ncpu0 1\n", want: 4 * time.Second},
		{name: "old kernel", stat: "cpu 100 0 0 0 0 0 0", want: time.Second},
		{name: "too short", stat: "cpu 1 2 3\n", fails: true},
		{name: "no number", stat: "cpu 1 2 3 4 x 6 7 8\n", fails: true},
		{name: "something else", stat: "intr 1 2 3 4 5 6 7 8\n", fails: true},
		{name: "nothing", stat: "", fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseBusy(tt.stat)
			if got != tt.want || errors.Is(err, ErrProcStat) != tt.fails {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestBusyTimeGrows(t *testing.T) {
	before, err := busyTime()
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		after, err := busyTime() // which is work
		if err != nil || after < before {
			t.Fatalf("after %v: %v, %v", before, after, err)
		}
		if after > before {
			return
		}
	}
	t.Error("ten seconds of work were not counted")
}

func TestCPUPerGB(t *testing.T) {
	if got := cpuPerGB(4*time.Second, 2*time.Second, 0.5, 2e9); math.Abs(got-1.5) > 1e-9 {
		t.Errorf("got %g, want 1.5", got)
	}
	if got := cpuPerGB(time.Second, 2*time.Second, 1, 1e9); got != 0 {
		t.Errorf("less work than when idle: got %g, want 0", got)
	}
}
