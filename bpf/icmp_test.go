// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/internal/nettest"
)

// TestPrivilegedPortUnreachable sends to ports that nobody serves. A connected
// socket hears of it only if the error quotes what it has sent.
func TestPrivilegedPortUnreachable(t *testing.T) {
	s := newServices(t)
	each(t, func(t *testing.T, i int, f family) {
		for name, to := range map[string]netip.AddrPort{
			"local":             port(s.local.addrs[i], closed),
			"remote":            port(s.remote.addrs[i], closed),
			"remote node":       port(f.nodeAddr(2), closed),
			"service at local":  port(f.service(atClosedLocal), 80),
			"service at remote": port(f.service(atClosedRemote), 80),
		} {
			t.Run(name, func(t *testing.T) {
				c := dial(t, s.client.NS, "udp", to)
				if _, err := c.Write([]byte("anybody?")); err != nil {
					t.Fatal(err)
				}
				if n, err := c.Read(make([]byte, 100)); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("read %d bytes (%v), want connection refused", n, err)
				}
			})
		}
	})
}

// TestPrivilegedPacketTooBig answers what comes out of the lane with the word that
// it is too big for a router further on.
func TestPrivilegedPacketTooBig(t *testing.T) {
	n, far := nodeWithLane(t)
	p := n.pod(2)
	backends := map[netip.AddrPort]netip.AddrPort{}
	for _, f := range families {
		backends[port(f.service(atRemote), 80)] = port(f.podAddr(2, 9), 5000)
	}
	n.kubeProxy(backends)
	each(t, func(t *testing.T, _ int, f family) {
		for name, to := range map[string]netip.AddrPort{
			"direct": port(f.podAddr(2, 9), 5000), "service": port(f.service(atRemote), 80),
		} {
			t.Run(name, func(t *testing.T) {
				c := dial(t, p.NS, "udp", to)
				if _, err := c.Write(payload(1350)); err != nil {
					t.Fatal(err)
				}
				raw, d := far.nextRaw(t)
				if d.To != port(f.podAddr(2, 9), 5000) {
					t.Fatalf("out of the lane came a packet to %s", d.To)
				}
				far.send(t, tooBig(f.nodeAddr(2), raw[:576], 1300))
				if size, err := c.Read(make([]byte, 100)); !errors.Is(err, unix.EMSGSIZE) {
					t.Errorf("read %d bytes (%v), want to be told that the packet is too big", size, err)
				}
				// The flow goes on as before.
				if _, err := c.Write([]byte("small")); err != nil {
					t.Fatal(err)
				}
				again := far.next(t)
				if again.Payload != "small" || again.From != d.From {
					t.Errorf("out of the lane came %+v", again)
				}
				far.send(t, datagram{again.To, again.From, 64, "answer"}.bytes())
				buf := make([]byte, 100)
				if size, err := c.Read(buf); err != nil || string(buf[:size]) != "answer" {
					t.Errorf("the pod got %q (%v)", buf[:size], err)
				}
			})
		}
	})
}

// TestPrivilegedTimeExceeded lets packets end at each hop between two pods.
func TestPrivilegedTimeExceeded(t *testing.T) {
	a, b := pair(t)
	from, beside, to := a.pod(2), a.pod(3), b.pod(2)
	each(t, func(t *testing.T, i int, f family) {
		for _, tc := range []struct {
			name string
			to   netip.Addr
			ttl  string
			by   netip.Addr // who says that it ended
		}{
			{"own node, to a pod beside", beside.addrs[i], "1", f.nodeAddr(1)},
			{"own node, to a remote pod", to.addrs[i], "1", f.nodeAddr(1)},
			{"remote node", to.addrs[i], "2", f.nodeAddr(2)},
		} {
			t.Run(tc.name, func(t *testing.T) {
				out := tracePing(t, from.NS, tc.to, tc.ttl)
				if !strings.Contains(out, "From "+tc.by.String()+" ") || !strings.Contains(out, "ime ") || !strings.Contains(out, "exceeded") {
					t.Errorf("nobody at %s says that the packet's time was up:\n%s", tc.by, out)
				}
			})
		}
		if out := ping(t, from.NS, to.addrs[i], 8); !strings.Contains(out, "3 received") {
			t.Errorf("without a limit:\n%s", out)
		}
	})
}

// tracePing sends one echo request with a TTL; that it is not answered is no failure.
func tracePing(t *testing.T, ns *nettest.NS, to netip.Addr, ttl string) string {
	t.Helper()
	out, err := ns.Try("ping", "-n", "-c", "1", "-W", "10", "-t", ttl, to.String())
	if err == nil {
		t.Errorf("answered with TTL %s:\n%s", ttl, out)
	}
	return out
}
