// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build kernels

package rotate

import (
	"testing"
	"time"

	"github.com/sealane/sealane/internal/nettest"
)

// TestPrivilegedRotationOverBadNetwork rotates the keys of a pair whose packets all
// take 20 ms each way, but for one in a hundred that overtakes them. WireGuard is
// the kernel's.
func TestPrivilegedRotationOverBadNetwork(t *testing.T) {
	l := newLab(t, 2)
	if !l.kernel {
		t.Fatal("no WireGuard in this kernel")
	}
	l.settled(next())
	bad := nettest.Impairment{Delay: 20 * time.Millisecond, Reordered: 1}
	for _, n := range l.nodes {
		var err error
		if n.impaired, err = n.ns.Impair("eth0", bad); err != nil {
			t.Fatal(err)
		}
	}
	a, b := l.nodes[0], l.nodes[1]
	sent := l.play(t, []scene{
		{"one after the other", bothWays, func(*testing.T) {
			for i := range rotations() {
				l.rotate(l.nodes[i%2])
			}
		}},
		{"both ends at once", bothWays, func(*testing.T) { l.rotate(a, b) }},
		{"one way only", oneWay, func(*testing.T) { l.rotate(a, b) }},
		{"news come late", bothWays, func(*testing.T) {
			l.late(b, 3*time.Second)
			l.rotate(a, b)
			l.late(nil, 0)
		}},
		{"daemon killed in each state", bothWays, func(t *testing.T) { a.dies(t, true) }},
	})
	if sent.reordered == 0 {
		t.Error("no packet overtook another: the network was not bad")
	}
}
