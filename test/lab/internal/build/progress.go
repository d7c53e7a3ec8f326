// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package build

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// cost is about how long two processors need for a target, nothing of it being in Go's cache.
func cost(name string) time.Duration {
	costs := map[string]time.Duration{
		"kubernetes": 5 * time.Minute, "agnhost": time.Minute, "coredns": time.Minute, "e2e": 3 * time.Minute,
		"containerd": 50 * time.Second, "etcd": 50 * time.Second, "flannel": 50 * time.Second,
		"runc": 15 * time.Second, "plugins": 20 * time.Second,
	}
	if c, ok := costs[name]; ok {
		return c
	}
	return time.Minute
}

// atOnce is how many targets are built at the same time: the go command keeps two processors busy by itself, and a
// linker may take 4 GiB. Memory is in bytes.
func atOnce(processors int, memory uint64) int {
	return max(1, min(2, processors/2, int(memory>>32)))
}

// available is the memory in bytes that can be had without swapping, 0 if the kernel does not say.
func available() uint64 {
	text, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(text)) {
		var kib uint64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}

// progress estimates when all targets will be built, by how fast the work went so far.
type progress struct {
	now     func() time.Time
	started time.Time
	total   time.Duration // cost of all targets

	mu      sync.Mutex
	done    time.Duration // cost of those that are built
	running map[string]time.Time
}

func newProgress(targets []Target, now func() time.Time) *progress {
	p := &progress{now: now, started: now(), running: map[string]time.Time{}}
	for _, t := range targets {
		p.total += cost(t.Name)
	}
	return p
}

func (p *progress) begin(t Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running[t.Name] = p.now()
}

func (p *progress) end(t Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.running, t.Name)
	p.done += cost(t.Name)
}

// left says about how long it will take until all is built.
func (p *progress) left() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	work := p.done
	for name, began := range p.running {
		// Of a target that takes longer than expected, a tenth is always still to be done.
		work += min(p.now().Sub(began)/time.Duration(len(p.running)), cost(name)*9/10)
	}
	left := p.total - work
	if passed := p.now().Sub(p.started); work > 0 && passed > 0 {
		left = time.Duration(float64(left) * float64(passed) / float64(work))
	}
	if left < time.Minute {
		return ", less than a minute left for all"
	}
	return fmt.Sprintf(", about %d min left for all", int(left.Round(time.Minute)/time.Minute))
}
