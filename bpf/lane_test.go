// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

var sameAddrs = cmpopts.EquateComparable(netip.AddrPort{}, netip.Addr{}, netip.Prefix{})

// nodeWithLane is a node whose lane's far end is in the hands of the test.
func nodeWithLane(t *testing.T) (*node, *tun) {
	t.Helper()
	n := newNode(t, 1)
	return n, n.addLane(2, false)
}

func TestPrivilegedPacketIntoLane(t *testing.T) {
	n, far := nodeWithLane(t)
	p := n.pod(2)
	each(t, func(t *testing.T, i int, f family) {
		from, to := port(p.addrs[i], 4000), port(f.podAddr(2, 9), 5000)
		sendUDP(t, p.NS, from, to, "short way")
		want := datagram{from, to, 63, "short way"}
		if diff := cmp.Diff(want, far.next(t), sameAddrs); diff != "" {
			t.Errorf("packet in the lane (-want +got):\n%s", diff)
		}
	})
}

// TestPrivilegedMarkStaysInside looks at the lane with two packet sockets, of
// which one takes only what carries a mark.
func TestPrivilegedMarkStaysInside(t *testing.T) {
	n, far := nodeWithLane(t)
	p := n.pod(2)
	onlyMarked := sniff(t, n.NS, n.lane.Index, unix.SOCK_DGRAM, marked()...)
	f := families[0]
	to := port(f.podAddr(2, 9), 5000)
	sendUDP(t, p.NS, port(p.addrs[0], 4000), to, "by the short way")
	if got := far.next(t).Payload; got != "by the short way" {
		t.Fatalf("%q came out of the lane", got)
	}
	// What the node itself marks keeps its mark, which shows that the socket works.
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 7) })
	}}
	in(t, n.NS, func() error {
		c, err := d.DialContext(t.Context(), "udp", to.String())
		if err != nil {
			return err
		}
		_, err = c.Write([]byte("marked by the node"))
		return errors.Join(err, c.Close())
	})
	got := make([]byte, 1<<16)
	if err := onlyMarked.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	size, err := onlyMarked.Read(got)
	if err != nil {
		t.Fatal(err)
	}
	if first, err := parseMarked(got[:size]); err != nil || first != "marked by the node" {
		t.Errorf("the first packet with a mark is %q (%v)", first, err)
	}
}

// parseMarked reads the payload of a packet whose UDP checksum may still be open.
func parseMarked(b []byte) (string, error) {
	if len(b) < 28 {
		return "", os.ErrInvalid
	}
	return string(b[28:]), nil
}

func TestPrivilegedPacketOutOfLane(t *testing.T) {
	n, far := nodeWithLane(t)
	p := n.pod(2)
	sniffer := sniff(t, p.NS, p.eth0.Index, unix.SOCK_RAW)
	each(t, func(t *testing.T, i int, f family) {
		from, to := port(f.podAddr(2, 9), 5000), port(p.addrs[i], 4000)
		var c net.PacketConn
		in(t, p.NS, func() (err error) {
			c, err = net.ListenPacket("udp", to.String())
			return err
		})
		defer c.Close()
		sent := datagram{from, to, 60, "out of the lane"}
		far.send(t, sent.bytes())

		buf := make([]byte, 100)
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		size, peer, err := c.ReadFrom(buf)
		if err != nil || string(buf[:size]) != sent.Payload || peer.String() != from.String() {
			t.Fatalf("the pod got %q from %v (%v)", buf[:size], peer, err)
		}
		sent.TTL--
		kind := []byte{0x08, 0x00}
		if from.Addr().Is6() {
			kind = []byte{0x86, 0xdd}
		}
		want := bytes.Join([][]byte{p.mac, hostMAC, kind, sent.bytes()}, nil)
		if diff := cmp.Diff(want, nextFrame(t, sniffer, sent.Payload)); diff != "" {
			t.Errorf("frame that a packet socket in the pod reads (-want +got):\n%s", diff)
		}
	})
}

// nextFrame gives the next frame that ends with the payload.
func nextFrame(t *testing.T, f *os.File, payload string) []byte {
	t.Helper()
	if err := f.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<16)
	for {
		n, err := f.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasSuffix(buf[:n], []byte(payload)) {
			return buf[:n]
		}
	}
}

// TestPrivilegedLaneRefuses sends what no peer of ours sends, then something good:
// only that arrives.
func TestPrivilegedLaneRefuses(t *testing.T) {
	n, far := nodeWithLane(t)
	p := n.pod(2)
	each(t, func(t *testing.T, i int, f family) {
		good := datagram{port(f.podAddr(2, 9), 5000), port(p.addrs[i], 4000), 60, "good"}
		var c net.PacketConn
		in(t, p.NS, func() (err error) {
			c, err = net.ListenPacket("udp", good.To.String())
			return err
		})
		defer c.Close()
		for _, tc := range []struct {
			name   string
			change func(*datagram)
			want   Reason
		}{
			{"source is this node's pod", func(d *datagram) { d.From = port(f.podAddr(1, 3), 5000) }, ReasonLaneSource},
			{"source is this node", func(d *datagram) { d.From = port(f.nodeAddr(1), 5000) }, ReasonLaneSource},
			{"source is of a node without lane", func(d *datagram) { d.From = port(f.podAddr(3, 3), 5000) }, ReasonLaneSource},
			{"destination is elsewhere", func(d *datagram) { d.To = port(f.podAddr(3, 3), 5000) }, ReasonLaneDestination},
			{"destination is the peer", func(d *datagram) { d.To = port(f.podAddr(2, 3), 5000) }, ReasonLaneDestination},
			{"destination is no pod", func(d *datagram) { d.To = port(f.podAddr(1, 77), 5000) }, ReasonNoEndpoint},
		} {
			bad := good
			bad.Payload = tc.name
			tc.change(&bad)
			got := counted(t, n.d, func() {
				far.send(t, bad.bytes())
				far.send(t, good.bytes())
				buf := make([]byte, 100)
				_ = c.SetReadDeadline(time.Now().Add(patience))
				if size, _, err := c.ReadFrom(buf); err != nil || string(buf[:size]) != "good" {
					t.Errorf("%s: the pod got %q (%v)", tc.name, buf[:size], err)
				}
			})
			wantDrops(t, got, tc.want)
		}
	})
}
