// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import "testing"

// TestPrivilegedLastBackendGone: a service whose only backend is replaced, with a
// time without any in between, as that of a pod that is made anew.
func TestPrivilegedLastBackendGone(t *testing.T) {
	d := load(t)
	world(t, d)
	each(t, func(t *testing.T, _ int, f family) {
		at, backends := port(f.service(1), 80), eight(f)
		offer(t, d, at, backends[0])
		const clients = 50
		for from := range uint16(clients) {
			for _, proto := range []uint8{protoTCP, protoUDP} {
				if got := goesTo(t, d, request(f, proto, 1000+from, at)); got != backends[0] {
					t.Fatalf("a first packet goes to %s", got)
				}
			}
		}
		offer(t, d, at)
		for from := range uint16(clients) {
			p := request(f, protoTCP, 1000+from, at)
			p.flags = flagACK
			if got := goesTo(t, d, p); got != backends[0] {
				t.Errorf("while there is no backend, a connection goes on with %s, want %s", got, backends[0])
			}
			if got := goesTo(t, d, request(f, protoUDP, 1000+from, at)); got != at {
				t.Errorf("while there is no backend, UDP goes to %s", got)
			}
		}
		again := request(f, protoTCP, 1000, at)
		if got := goesTo(t, d, again); got != at {
			t.Errorf("while there is no backend, a new connection goes to %s", got)
		}
		again.flags = flagACK // it found somebody else at that address
		if got := goesTo(t, d, again); got != at {
			t.Errorf("what follows goes to %s, of which its port had been before", got)
		}
		offer(t, d, at, backends[1])
		for from := range uint16(clients) {
			for _, proto := range []uint8{protoTCP, protoUDP} {
				if got := goesTo(t, d, request(f, proto, 1000+from, at)); got != backends[1] {
					t.Errorf("protocol %d: a new connection by a port used before goes to %s, want %s", proto, got, backends[1])
				}
			}
		}
	})
}

// TestPrivilegedConnectionOutlivesReadiness is with sockets: a backend that is not
// ready any more, since it ends, still answers those that it has.
func TestPrivilegedConnectionOutlivesReadiness(t *testing.T) {
	s := newBalanced(t)
	each(t, func(t *testing.T, i int, f family) {
		at := port(f.service(61), 80)
		offer(t, s.a.d, at, port(s.remote.addrs[i], 7))
		tcp := dial(t, s.client.NS, "tcp", at)
		exchange(t, tcp, 100)
		offer(t, s.a.d, at)
		wantPaths(t, counted(t, s.a.d, func() { exchange(t, tcp, 100) }), PathLaneOut, PathLaneIn)
	})
}
