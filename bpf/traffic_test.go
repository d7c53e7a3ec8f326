// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/sealane/sealane/internal/nettest"
)

// patience is how long a test waits for what must happen. Only a failure uses it up.
const patience = 20 * time.Second

// serve echoes TCP and UDP on the port of the address until the test ends.
func serve(t testing.TB, ns *nettest.NS, at netip.AddrPort) {
	t.Helper()
	var l net.Listener
	var c net.PacketConn
	in(t, ns, func() (err error) {
		if l, err = net.Listen("tcp", at.String()); err != nil {
			return err
		}
		c, err = net.ListenPacket("udp", at.String())
		return err
	})
	t.Cleanup(func() { _ = errors.Join(l.Close(), c.Close()) })
	go answerAll(l, func(conn net.Conn) { _, _ = io.Copy(conn, conn) })
	go func() {
		buf := make([]byte, 1<<16)
		for {
			size, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(buf[:size], from)
		}
	}()
}

// answerAll answers each connection in a goroutine of its own until l is closed.
func answerAll(l net.Listener, answer func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			answer(conn)
			_ = conn.Close()
		}()
	}
}

// dial opens a socket in the namespace. UDP sockets are connected too: they take
// answers from the address that they were sent to and from no other.
func dial(t testing.TB, ns *nettest.NS, network string, to netip.AddrPort) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var c net.Conn
	in(t, ns, func() (err error) {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, to.String())
		return err
	})
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

func payload(size int) []byte {
	r := rand.New(rand.NewPCG(uint64(size), 1))
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// echoTCP sends size bytes and wants them back, both at full speed at once.
func echoTCP(t testing.TB, ns *nettest.NS, to netip.AddrPort, size int) {
	t.Helper()
	c, ok := dial(t, ns, "tcp", to).(*net.TCPConn)
	if !ok {
		t.Fatal("no TCP connection")
	}
	want := payload(size)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		sent <- errors.Join(err, c.CloseWrite())
	}()
	got, err := io.ReadAll(c)
	if err := errors.Join(err, <-sent); err != nil {
		t.Fatalf("TCP to %s: %v", to, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("TCP to %s: %d bytes came back, want the %d that were sent", to, len(got), size)
	}
}

// echoUDP sends datagrams of these sizes and wants each back.
func echoUDP(t testing.TB, ns *nettest.NS, to netip.AddrPort, sizes ...int) {
	t.Helper()
	c := dial(t, ns, "udp", to)
	for _, size := range sizes {
		exchange(t, c, size)
	}
}

// exchange sends one datagram and wants it back.
func exchange(t testing.TB, c net.Conn, size int) {
	t.Helper()
	want, got := payload(size), make([]byte, 1<<16)
	if _, err := c.Write(want); err != nil {
		t.Fatalf("UDP to %s: %v", c.RemoteAddr(), err)
	}
	n, err := c.Read(got)
	if err != nil || !bytes.Equal(got[:n], want) {
		t.Fatalf("UDP to %s: %d bytes came back (%v), want the %d that were sent", c.RemoteAddr(), n, err, size)
	}
}

// ping sends echo requests of a payload size and wants each answered.
func ping(t testing.TB, ns *nettest.NS, to netip.Addr, size int) string {
	t.Helper()
	return ns.Run("ping", "-n", "-c", "3", "-i", "0.01", "-W", "10", "-s", strconv.Itoa(size), to.String())
}

// counted gives what the data path counted while f ran.
func counted(t testing.TB, d *Datapath, f func()) Counters {
	t.Helper()
	before, err := d.Counters()
	if err != nil {
		t.Fatal(err)
	}
	f()
	after, err := d.Counters()
	if err != nil {
		t.Fatal(err)
	}
	for r, n := range after.Drops {
		after.Drops[r] = Counter{n.Packets - before.Drops[r].Packets, n.Bytes - before.Drops[r].Bytes}
	}
	for p, n := range after.Paths {
		after.Paths[p] = Counter{n.Packets - before.Paths[p].Packets, n.Bytes - before.Paths[p].Bytes}
	}
	return after
}

// wantPaths wants packets on these paths and on no other, and no drop at all but
// of what pods say to their neighbourhood by themselves.
func wantPaths(t testing.TB, c Counters, want ...Path) {
	t.Helper()
	wanted := map[Path]bool{}
	for _, p := range want {
		wanted[p] = true
	}
	for p, n := range c.Paths {
		if (n.Packets > 0) != wanted[p] {
			t.Errorf("path %s: %d packets, want some: %v", p, n.Packets, wanted[p])
		}
	}
	wantDrops(t, c)
}

// wantDrops wants drops for these reasons and no other.
func wantDrops(t testing.TB, c Counters, want ...Reason) {
	t.Helper()
	wanted := map[Reason]bool{}
	for _, r := range want {
		wanted[r] = true
	}
	for r, n := range c.Drops {
		if chatter := r == ReasonLinkLocal || r == ReasonMulticast; chatter && !wanted[r] {
			continue // router solicitations and the like
		}
		if (n.Packets > 0) != wanted[r] {
			t.Errorf("reason %s: %d packets dropped, want some: %v", r, n.Packets, wanted[r])
		}
	}
}

func each(t *testing.T, f func(t *testing.T, i int, family family)) {
	t.Helper()
	for i, family := range families {
		t.Run(family.name, func(t *testing.T) { f(t, i, family) })
	}
}

func port(a netip.Addr, p uint16) netip.AddrPort { return netip.AddrPortFrom(a, p) }
