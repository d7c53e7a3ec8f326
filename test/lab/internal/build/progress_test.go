// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package build

import (
	"testing"
	"time"
)

func TestProgress(t *testing.T) {
	now := time.Now()
	kubernetes, runc, etcd := Target{Name: "kubernetes"}, Target{Name: "runc"}, Target{Name: "etcd"} // 300, 15 and 50 s
	p := newProgress([]Target{kubernetes, runc, etcd}, func() time.Time { return now })
	want := func(text string) {
		t.Helper()
		if got := p.left(); got != text {
			t.Errorf("got %q, want %q", got, text)
		}
	}
	p.begin(kubernetes)
	want(", about 6 min left for all")
	now = now.Add(2 * time.Minute) // as fast as expected
	want(", about 4 min left for all")
	now = now.Add(8 * time.Minute) // 270 of 365 s of work took ten minutes
	want(", about 4 min left for all")
	p.end(kubernetes) // 300 s took ten minutes: the rest takes 130 s
	p.begin(runc)
	want(", about 2 min left for all")
	now = now.Add(20 * time.Second)
	p.end(runc)
	p.begin(etcd)
	now = now.Add(50 * time.Second)
	want(", less than a minute left for all")
}

func TestEveryTargetHasACost(t *testing.T) {
	for _, target := range Targets() {
		if c := cost(target.Name); c < time.Second || c > time.Hour {
			t.Errorf("%s: %s", target.Name, c)
		}
	}
}

func TestAtOnce(t *testing.T) {
	for _, tt := range []struct {
		processors int
		gib        uint64
		want       int
	}{{1, 64, 1}, {2, 64, 1}, {4, 7, 1}, {4, 8, 2}, {4, 0, 1}, {64, 256, 2}} {
		if got := atOnce(tt.processors, tt.gib<<30); got != tt.want {
			t.Errorf("%d processors, %d GiB: got %d, want %d", tt.processors, tt.gib, got, tt.want)
		}
	}
	if available() == 0 {
		t.Error("/proc/meminfo does not say how much memory is available")
	}
}
