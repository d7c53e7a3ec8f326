// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build kernels

package nettest

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// TestPrivilegedImpair: an echo takes the delay of both ways at least.
func TestPrivilegedImpair(t *testing.T) {
	Privileged(t)
	a, b := NewNS(t), NewNS(t)
	at := netip.MustParseAddr("192.0.2.2")
	near, far := netip.MustParsePrefix("192.0.2.1/24"), netip.PrefixFrom(at, 24)
	Wire(t, End{NS: a, Name: "eth0", Addresses: []netip.Prefix{near}}, End{NS: b, Name: "eth0", Addresses: []netip.Prefix{far}})
	const delay = 100 * time.Millisecond
	var ways []*Impaired
	for _, ns := range []*NS{a, b} {
		w, err := ns.Impair("eth0", Impairment{Delay: delay})
		if err != nil {
			t.Fatal(err)
		}
		ways = append(ways, w)
	}
	if took := roundTrip(t, a, b, netip.AddrPortFrom(at, 7)); took < 2*delay {
		t.Errorf("an echo took %s, want at least %s", took, 2*delay)
	}
	for _, w := range ways {
		if n, err := w.Overflowed(); n != 0 || err != nil {
			t.Errorf("%s: %d packets found a full queue (%v)", w.device, n, err)
		}
	}
	if _, err := a.Impair("none", Impairment{Delay: delay}); err == nil {
		t.Error("a device that is not there was impaired")
	}
}

// roundTrip sends a datagram and waits until it has come back.
func roundTrip(t *testing.T, from, to *NS, at netip.AddrPort) time.Duration {
	t.Helper()
	var server net.PacketConn
	var client net.Conn
	var err error
	to.Do(func() { server, err = net.ListenPacket("udp", at.String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	from.Do(func() { client, err = net.Dial("udp", at.String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	go func() {
		buf := make([]byte, 10)
		if n, back, err := server.ReadFrom(buf); err == nil {
			_, _ = server.WriteTo(buf[:n], back)
		}
	}()
	start := time.Now()
	if err := client.SetDeadline(start.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("echo")); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	return time.Since(start)
}
