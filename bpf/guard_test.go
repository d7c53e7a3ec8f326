// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/internal/nl"
)

// outsideAddr is the address of a machine that is not of the cluster.
func (f family) outsideAddr() netip.Addr { return f.nodeAddr(200) }

// uplink wires the node to a machine outside, by a device with the leak guard,
// and gives it the default route.
func (n *node) uplink(device string) *nettest.NS {
	n.t.Helper()
	outside := nettest.NewNS(n.t)
	up, _ := nettest.Wire(n.t, nettest.End{NS: n.NS, Name: device}, nettest.End{NS: outside, Name: "far"})
	in(n.t, n.NS, func() error { return n.d.AttachUplink(Device{up.Index, device}, L2) })
	settle(n.t, n.NS, device)
	settle(n.t, outside, "far")
	far, err := outside.Handle().LinkByName("far")
	if err != nil {
		n.t.Fatal(err)
	}
	for _, f := range families {
		all := netip.PrefixFrom(f.nodeAddr(1), 0).Masked()
		for _, step := range []error{
			n.Handle().ReplaceRoute(nl.Route{Dst: single(f.outsideAddr()), Device: up.Index, Src: f.nodeAddr(n.number)}),
			n.Handle().ReplaceRoute(nl.Route{Dst: all, Via: f.outsideAddr(), Device: up.Index, Onlink: true}),
			n.Handle().EnsureNeighbor(up.Index, f.outsideAddr(), far.MAC),
			outside.Handle().EnsureAddress(far.Index, single(f.outsideAddr())),
			outside.Handle().ReplaceRoute(nl.Route{Dst: all, Via: f.nodeAddr(n.number), Device: far.Index, Onlink: true}),
			outside.Handle().EnsureNeighbor(far.Index, f.nodeAddr(n.number), up.MAC),
		} {
			if step != nil {
				n.t.Fatal(step)
			}
		}
		awaitLocal(n.t, outside, f.outsideAddr())
	}
	return outside
}

func TestPrivilegedLeakGuard(t *testing.T) {
	for _, device := range []string{"eth0", "eth0.100"} {
		t.Run(device, func(t *testing.T) {
			n := newNode(t, 1)
			p, outside := n.pod(2), n.uplink(device)
			index := n.link(device).Index
			each(t, func(t *testing.T, i int, f family) {
				out, far := f.outsideAddr(), f.podAddr(2, 9)
				serve(t, n.NS, port(f.nodeAddr(1), 7))
				wantDrops(t, counted(t, n.d, func() { echoTCP(t, outside, port(f.nodeAddr(1), 7), large) }))
				if l, ok, err := n.d.LastLeak(); i == 0 && (err != nil || ok) {
					t.Errorf("before any leak the last one is %+v (%v)", l, err)
				}
				for _, tc := range []struct {
					name     string
					from, to netip.AddrPort
					sender   *nettest.NS
					want     Reason
				}{
					{"own pod, not masqueraded", port(p.addrs[i], 4000), port(out, 9), p.NS, ReasonLeakEgress},
					{"to own pod from outside", port(out, 4001), port(p.addrs[i], 9), outside, ReasonLeakIngress},
					{"to a peer's pod from outside", port(out, 4002), port(far, 9), outside, ReasonLeakIngress},
				} {
					// One packet, sent once: what is counted and kept is that one.
					got := counted(t, n.d, func() {
						awaitDrop(t, n.d, tc.want, func() { sendUDP(t, tc.sender, tc.from, tc.to, tc.name) })
					})
					wantDrops(t, got, tc.want)
					if c := got.Drops[tc.want].Packets; c != 1 {
						t.Errorf("%s: %d packets counted, want 1", tc.name, c)
					}
					want := Leak{tc.from.Addr(), tc.to.Addr(), index, tc.want}
					if l, _, err := n.d.LastLeak(); err != nil || cmp.Diff(want, l, sameAddrs) != "" {
						t.Errorf("%s: last leak (-want +got):\n%s", tc.name, cmp.Diff(want, l, sameAddrs))
					}
				}
			})
		})
	}
}

// awaitDrop runs send and waits until a packet has been dropped for the reason: on
// its way between namespaces a packet may change threads.
func awaitDrop(t testing.TB, d *Datapath, reason Reason, send func()) {
	t.Helper()
	deadline := time.Now().Add(patience)
	count := func() uint64 {
		c, err := d.Counters()
		if err != nil {
			t.Fatal(err)
		}
		return c.Drops[reason].Packets
	}
	before := count()
	send()
	for count() == before {
		if time.Now().After(deadline) {
			t.Fatalf("nothing was dropped for %s", reason)
		}
		runtime.Gosched()
	}
}

// TestPrivilegedSpoofedSource has a pod send from addresses that are not its own,
// then from its own: only that gets through.
func TestPrivilegedSpoofedSource(t *testing.T) {
	n, far := nodeWithLane(t)
	p, victim := n.pod(2), n.pod(3)
	each(t, func(t *testing.T, i int, f family) {
		to := port(f.podAddr(2, 9), 5000)
		for _, forged := range []netip.Addr{victim.addrs[i], f.podAddr(2, 3), f.nodeAddr(1), f.nodeAddr(2), f.service(1)} {
			if err := p.Handle().EnsureAddress(p.eth0.Index, single(forged)); err != nil {
				t.Fatal(err)
			}
			awaitLocal(t, p.NS, forged)
			got := counted(t, n.d, func() {
				sendUDP(t, p.NS, port(forged, 4000), to, "forged")
				sendUDP(t, p.NS, port(p.addrs[i], 4000), to, "own")
				if d := far.next(t); d.Payload != "own" || d.From.Addr() != p.addrs[i] {
					t.Errorf("from %s: %+v came out of the lane", forged, d)
				}
			})
			wantDrops(t, got, ReasonSpoofedSource)
			if c := got.Drops[ReasonSpoofedSource]; c.Packets != 1 {
				t.Errorf("from %s: %d packets counted, want 1", forged, c.Packets)
			}
			if err := p.Handle().DeleteAddress(p.eth0.Index, single(forged)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestPrivilegedRefusedAtOnce tries what has no lane and no pod: the sender is
// told, and nothing goes out by the default route.
func TestPrivilegedRefusedAtOnce(t *testing.T) {
	n := newNode(t, 1)
	p := n.pod(2)
	n.uplink("eth0")
	each(t, func(t *testing.T, i int, f family) {
		for _, tc := range []struct {
			name string
			to   netip.Addr
			want Reason
		}{
			{"peer without lane", f.podAddr(2, 9), ReasonNoLane},
			{"no such pod", f.podAddr(1, 99), ReasonNoEndpoint},
		} {
			got := counted(t, n.d, func() {
				in(t, p.NS, func() error {
					d := net.Dialer{Timeout: patience}
					began := time.Now()
					c, err := d.DialContext(t.Context(), "tcp", port(tc.to, 80).String())
					if err == nil {
						return fmt.Errorf("%s: connected to %s", tc.name, c.RemoteAddr())
					}
					if took := time.Since(began); took > patience/2 {
						return fmt.Errorf("%s: refused after %s", tc.name, took)
					}
					return nil
				})
			})
			wantDrops(t, got, tc.want)
		}
	})
}
