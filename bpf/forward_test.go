// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"strings"
	"testing"
)

const (
	large = 4 << 20 // of a TCP transfer: long enough for segments of 64 KiB
	mtu   = laneMTU - 48
)

// wantLargeSegments wants that a transfer of large bytes was not cut to the MTU.
// How much larger they are is the sender's affair, and small on a slow machine.
func wantLargeSegments(t testing.TB, c Counter) {
	t.Helper()
	if c.Bytes < large || c.Packets > large/mtu*3/4 {
		t.Errorf("%d packets carried %d bytes: segments do not stay large", c.Packets, c.Bytes)
	}
}

func TestPrivilegedPodsOfOneNode(t *testing.T) {
	n := newNode(t, 1)
	a, b := n.pod(2), n.pod(3)
	each(t, func(t *testing.T, i int, _ family) {
		to := b.addrs[i]
		serve(t, b.NS, port(to, 7))
		c := counted(t, n.d, func() { echoTCP(t, a.NS, port(to, 7), large) })
		wantPaths(t, c, PathLocal)
		wantLargeSegments(t, c.Paths[PathLocal])
		wantPaths(t, counted(t, n.d, func() { echoUDP(t, a.NS, port(to, 7), 1, 100, mtu) }), PathLocal)
		wantPaths(t, counted(t, n.d, func() {
			if out := ping(t, a.NS, to, 56); !strings.Contains(out, "ttl=63") {
				t.Errorf("a pod of the same node is not one hop away:\n%s", out)
			}
		}), PathLocal)
		// Fragments are the stack's.
		wantPaths(t, counted(t, n.d, func() { echoUDP(t, a.NS, port(to, 7), 5000, 60000) }), PathStackOut, PathStackIn)
		wantPaths(t, counted(t, n.d, func() { ping(t, a.NS, to, 4000) }), PathStackOut, PathStackIn)
	})
}

func TestPrivilegedPodsOfTwoNodes(t *testing.T) {
	a, b := pair(t)
	from, to := a.pod(2), b.pod(2)
	each(t, func(t *testing.T, i int, _ family) {
		far := to.addrs[i]
		serve(t, to.NS, port(far, 7))
		through := func(f func(), want ...Path) Counters {
			t.Helper()
			var atB Counters
			atA := counted(t, a.d, func() { atB = counted(t, b.d, f) })
			wantPaths(t, atA, want...)
			wantPaths(t, atB, want...)
			return atA
		}
		c := through(func() { echoTCP(t, from.NS, port(far, 7), large) }, PathLaneOut, PathLaneIn)
		wantLargeSegments(t, c.Paths[PathLaneOut])
		wantLargeSegments(t, c.Paths[PathLaneIn])
		through(func() { echoUDP(t, from.NS, port(far, 7), 1, 100, mtu) }, PathLaneOut, PathLaneIn)
		through(func() {
			if out := ping(t, from.NS, far, 56); !strings.Contains(out, "ttl=62") {
				t.Errorf("a pod of the next node is not two hops away:\n%s", out)
			}
		}, PathLaneOut, PathLaneIn)
		through(func() { echoUDP(t, from.NS, port(far, 7), 5000, 60000) }, PathStackOut, PathStackIn)
		through(func() { ping(t, from.NS, far, 4000) }, PathStackOut, PathStackIn)
	})
}

func TestPrivilegedNodesAndPods(t *testing.T) {
	a, b := pair(t)
	hostnet(a, b)
	p := a.pod(2)
	each(t, func(t *testing.T, i int, f family) {
		own, remote := f.nodeAddr(1), f.nodeAddr(2)
		serve(t, p.NS, port(p.addrs[i], 7))
		serve(t, a.NS, port(own, 7))
		serve(t, b.NS, port(remote, 7))
		wantPaths(t, counted(t, a.d, func() {
			echoTCP(t, a.NS, port(p.addrs[i], 7), large) // a probe of the kubelet
			echoUDP(t, a.NS, port(p.addrs[i], 7), 100, 5000)
			echoTCP(t, p.NS, port(own, 7), large)
			echoUDP(t, p.NS, port(own, 7), 100, 5000)
		}), PathStackOut, PathStackIn)
		// What the pod begins passes the host's connection tracking both ways.
		wantPaths(t, counted(t, a.d, func() {
			echoTCP(t, p.NS, port(remote, 7), large)
			echoUDP(t, p.NS, port(remote, 7), 100, mtu)
		}), PathStackOut, PathStackIn)
		wantPaths(t, counted(t, a.d, func() {
			echoTCP(t, b.NS, port(p.addrs[i], 7), large) // a probe from elsewhere
			echoUDP(t, b.NS, port(p.addrs[i], 7), 100, mtu)
		}), PathLaneOut, PathLaneIn)
	})
}
