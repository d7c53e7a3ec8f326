// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPrivilegedBalancedErrors: a connected socket hears of an error only if it
// quotes what the pod has sent, to the service.
func TestPrivilegedBalancedErrors(t *testing.T) {
	s := newBalanced(t)
	each(t, func(t *testing.T, i int, f family) {
		for name, backend := range map[string]netip.Addr{
			"local": s.local.addrs[i], "remote": s.remote.addrs[i], "itself": s.client.addrs[i],
			"own node": f.nodeAddr(1), "other node": f.nodeAddr(2), "outside": f.outsideAddr(),
		} {
			for network, at := range map[string]netip.AddrPort{"another port": port(f.service(51), 80), "the same port": port(f.service(52), closed)} {
				t.Run(name+" "+network, func(t *testing.T) {
					offer(t, s.a.d, at, port(backend, closed))
					c := dial(t, s.client.NS, "udp", at)
					if _, err := c.Write([]byte("anybody?")); err != nil {
						t.Fatal(err)
					}
					if n, err := c.Read(make([]byte, 100)); !errors.Is(err, unix.ECONNREFUSED) {
						t.Errorf("UDP: read %d bytes (%v), want connection refused", n, err)
					}
					in(t, s.client.NS, func() error {
						c, err := net.DialTimeout("tcp", at.String(), patience)
						if !errors.Is(err, unix.ECONNREFUSED) {
							t.Errorf("TCP: %v (%v), want connection refused", c, err)
						}
						return nil
					})
				})
			}
		}
	})
	c, err := s.a.d.Counters()
	if err != nil {
		t.Fatal(err)
	}
	wantDrops(t, c)
}

// TestPrivilegedBalancedPacketTooBig has a router behind the lane say so.
func TestPrivilegedBalancedPacketTooBig(t *testing.T) {
	n, far := nodeWithLane(t)
	p := n.pod(2)
	each(t, func(t *testing.T, _ int, f family) {
		at, backend := port(f.service(53), 80), port(f.podAddr(2, 9), 5000)
		offer(t, n.d, at, backend)
		c := dial(t, p.NS, "udp", at)
		if _, err := c.Write(payload(1350)); err != nil {
			t.Fatal(err)
		}
		raw, d := far.nextRaw(t) // with right checksums, by a device that computes none
		if d.To != backend || d.TTL != 63 {
			t.Fatalf("out of the lane came %s to %s", d.From, d.To)
		}
		far.send(t, tooBig(f.nodeAddr(2), raw[:576], 1300))
		if size, err := c.Read(make([]byte, 100)); !errors.Is(err, unix.EMSGSIZE) {
			t.Errorf("read %d bytes (%v), want to be told that the packet is too big", size, err)
		}
		if _, err := c.Write([]byte("small")); err != nil {
			t.Fatal(err)
		}
		again := far.next(t)
		if again.Payload != "small" || again.From != d.From || again.To != backend {
			t.Errorf("out of the lane came %+v", again)
		}
		far.send(t, datagram{again.To, again.From, 64, "answer"}.bytes())
		buf := make([]byte, 100)
		if size, err := c.Read(buf); err != nil || string(buf[:size]) != "answer" {
			t.Errorf("the pod got %q (%v)", buf[:size], err)
		}
	})
}
