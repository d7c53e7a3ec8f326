// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/internal/nettest"
)

// marker is what pods and nodes say to each other, and what nobody may see.
const marker = "sealane-lanes-marker-5c20"

const (
	serverPort  = 8080
	farNodePort = 30080 // to a pod of another node, masqueraded
	ownNodePort = 30081 // to a pod of the same node, source kept
)

// likeKubeProxy makes two node ports at a node, with the mark and the order of
// kube-proxy's rules.
func likeKubeProxy(l *lab, at, far *node) {
	rules := "table inet kube-proxy { chain nat { type nat hook prerouting priority dstnat;"
	for i, own := range l.pods(at.n) {
		ip, to := "ip", l.pods(far.n)[i]
		if own.Is6() {
			ip = "ip6"
		}
		for _, proto := range []string{"tcp", "udp"} {
			rules += fmt.Sprintf(" %s daddr %s %s dport %d meta mark set meta mark | 0x4000 dnat %s to %s;",
				ip, at.address[i], proto, farNodePort, ip, netip.AddrPortFrom(to, serverPort))
			rules += fmt.Sprintf(" %s daddr %s %s dport %d dnat %s to %s;", ip, at.address[i], proto, ownNodePort, ip, netip.AddrPortFrom(own, serverPort))
		}
	}
	at.ns.Run("nft", rules+" }; chain post { type nat hook postrouting priority srcnat;"+
		" meta mark & 0x4000 == 0x4000 meta mark set meta mark ^ 0x4000 masquerade fully-random; }; }")
}

// TestPrivilegedPodsMeetOtherNodes: another node, its node ports and what is
// behind them take a pod for its node, and every answer comes by a lane.
func TestPrivilegedPodsMeetOtherNodes(t *testing.T) {
	l := newLab(t, "46", 3)
	l.applyAll()
	a, b, c := l.nodes[0], l.nodes[1], l.nodes[2]
	likeKubeProxy(l, b, c)
	for i, from := range l.pods(a.n) {
		for _, tt := range []struct {
			name       string
			port       uint16
			at         *nettest.NS
			listen, as netip.Addr
		}{
			{"node", serverPort, b.ns, b.address[i], a.address[i]},
			{"node port, pod there", ownNodePort, b.ns, l.pods(b.n)[i], a.address[i]},
			{"node port, pod elsewhere", farNodePort, c.ns, l.pods(c.n)[i], b.address[i]},
		} {
			for _, network := range []string{"tcp", "udp"} {
				s := server{at: tt.at, network: network, listen: netip.AddrPortFrom(tt.listen, serverPort)}
				seen, err := s.answer(a.ns, from, netip.AddrPortFrom(b.address[i], tt.port))
				if err != nil || seen != tt.as {
					t.Errorf("%s by %s from %s: seen as %s, want %s (%v)", tt.name, network, from, seen, tt.as, err)
				}
			}
		}
		// Nobody listens: the refusal, too, comes by a lane.
		if _, err := dial(a.ns, "tcp", from, netip.AddrPortFrom(b.address[i], 9)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a closed port of another node: %v", err)
		}
		// Larger than a lane carries at once.
		if out, err := a.ns.Try("ping", "-n", "-c", "1", "-W", "2", "-s", "4000", "-I", from.String(), b.address[i].String()); err != nil {
			t.Errorf("ping in fragments: %v\n%s", err, out)
		}
	}
	if segments, marked := l.segments.Load(), l.marked.Load(); segments+marked != 0 {
		t.Errorf("%d TCP segments and %d payloads in the clear", segments, marked)
	}
	// Between the nodes themselves the way is the old one.
	s := server{at: b.ns, network: "tcp", listen: netip.AddrPortFrom(b.address[0], serverPort)}
	if seen, err := s.answer(a.ns, a.address[0], s.listen); err != nil || seen != a.address[0] || l.segments.Load() == 0 {
		t.Errorf("node to node: seen as %s, %d segments on the wire (%v)", seen, l.segments.Load(), err)
	}
}

// TestPrivilegedAnswerWithoutLane: where an answer does not find its lane, it goes
// nowhere.
func TestPrivilegedAnswerWithoutLane(t *testing.T) {
	l := newLab(t, "46", 2)
	l.applyAll()
	a, b := l.nodes[0], l.nodes[1]
	for i, from := range l.pods(a.n) {
		flag := map[bool]string{true: "-4", false: "-6"}[from.Is4()]
		for name, spoil := range map[string][]string{
			"no rule":  {flag, "rule", "del", "fwmark", "0x20000000/0x20000000", "lookup", "5154"},
			"no route": {flag, "route", "flush", "table", "5154"},
		} {
			b.ns.Run("ip", spoil...)
			s := server{at: b.ns, network: "udp", listen: netip.AddrPortFrom(b.address[i], serverPort)}
			if seen, err := s.answer(a.ns, from, s.listen); err == nil {
				t.Errorf("%s: an answer came to %s, seen as %s", name, from, seen)
			}
			b.apply(a)
			if _, err := s.answer(a.ns, from, s.listen); err != nil {
				t.Errorf("%s: put right, but %v", name, err)
			}
		}
	}
	if marked := l.marked.Load(); marked != 0 {
		t.Errorf("%d payloads in the clear", marked)
	}
}

// TestPrivilegedNoWayRoundTheLane: what belongs to a connection in lanes neither
// leaves nor arrives by another way.
func TestPrivilegedNoWayRoundTheLane(t *testing.T) {
	l := newLab(t, "4", 2)
	l.applyAll()
	a, b := l.nodes[0], l.nodes[1]
	to := netip.AddrPortFrom(b.address[0], serverPort)
	s := server{at: b.ns, network: "udp", listen: to}
	conn, err := s.open()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client, err := dial(a.ns, "udp", l.pods(a.n)[0], to)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	arrives := func() bool {
		t.Helper()
		if _, err := client.Write([]byte(marker)); err != nil && !errors.Is(err, syscall.EPERM) { // the filter's
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, err := conn.Read(make([]byte, 100))
		return err == nil
	}
	if !arrives() {
		t.Fatal("nothing arrives by the lane")
	}
	a.ns.Run("ip", "route", "replace", b.address[0].String(), "dev", "eth0", "table", "5154")
	if arrives() || l.marked.Load() != 0 {
		t.Errorf("a route round the lane was taken, with %d packets", l.marked.Load())
	}
	// A sender that nothing holds back.
	a.ns.Run("nft", "flush", "chain", "inet", "sealane", "confine")
	if arrives() || l.marked.Load() == 0 {
		t.Errorf("a packet past the lane was taken for one of the lane's connections; %d were on the wire", l.marked.Load())
	}
}

// TestPrivilegedLargeAnswerLeavesTheLaneWide: an answer that may not be fragmented
// and is too large for the lane must not change this node's path to the other one,
// which the lane's own packets take.
func TestPrivilegedLargeAnswerLeavesTheLaneWide(t *testing.T) {
	l := newLab(t, "46", 2)
	l.applyAll()
	a, b := l.nodes[0], l.nodes[1]
	for i, from := range l.pods(a.n) {
		to := netip.AddrPortFrom(b.address[i], serverPort)
		conn, err := server{at: b.ns, network: "udp", listen: to}.open()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		discover(t, conn, from.Is4())
		client, err := dial(a.ns, "udp", from, to)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if _, err := client.Write([]byte(marker)); err != nil {
			t.Fatal(err)
		}
		_, peer, err := conn.ReadFromUDPAddrPort(make([]byte, 100))
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{1450, 100} { // the second comes after whatever the first has caused
			if _, err := conn.WriteToUDPAddrPort(make([]byte, size), peer); err != nil && !errors.Is(err, syscall.EMSGSIZE) {
				t.Fatal(err)
			}
		}
		if err := client.SetReadDeadline(time.Now().Add(3 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := client.Read(make([]byte, 2000)); err != nil || n != 100 {
			t.Errorf("%d bytes came to %s: %v", n, from, err)
		}
		if route := b.ns.Run("ip", "route", "get", a.address[i].String()); strings.Contains(route, "mtu") {
			t.Errorf("the path to the node got narrow: %s", route)
		}
	}
}

// discover has the kernel send datagrams whole or not at all.
func discover(t *testing.T, conn *net.UDPConn, four bool) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	level, option, value := unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO
	if four {
		level, option, value = unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO
	}
	if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
}

// server gives the marker to whoever asks for it with the marker.
type server struct {
	at      *nettest.NS
	network string
	listen  netip.AddrPort
}

// open opens the server's UDP socket.
func (s server) open() (c *net.UDPConn, err error) {
	s.at.Do(func() { c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(s.listen)) })
	return c, err
}

// answer asks the server from an address of the client's and returns the address
// that the server sees.
func (s server) answer(client *nettest.NS, from netip.Addr, to netip.AddrPort) (netip.Addr, error) {
	seen := make(chan netip.Addr, 1)
	stop, err := s.start(seen)
	if err != nil {
		return netip.Addr{}, err
	}
	defer stop()
	c, err := dial(client, s.network, from, to)
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	if _, err := c.Write([]byte(marker)); err != nil {
		return netip.Addr{}, err
	}
	if err := c.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return netip.Addr{}, err
	}
	got := make([]byte, len(marker))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != marker {
		return netip.Addr{}, fmt.Errorf("read answer %q: %w", got, err)
	}
	return <-seen, nil
}

func (s server) start(seen chan<- netip.Addr) (stop func(), err error) {
	buf := make([]byte, len(marker))
	if s.network == "udp" {
		c, err := s.open()
		if err != nil {
			return nil, err
		}
		go func() {
			if _, from, err := c.ReadFromUDPAddrPort(buf); err == nil {
				seen <- from.Addr().Unmap()
				_, _ = c.WriteToUDPAddrPort(buf, from)
			}
		}()
		return func() { _ = c.Close() }, nil
	}
	var ln net.Listener
	s.at.Do(func() { ln, err = net.Listen("tcp", s.listen.String()) })
	if err != nil {
		return nil, err
	}
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if _, err := io.ReadFull(c, buf); err == nil {
			seen <- netip.MustParseAddrPort(c.RemoteAddr().String()).Addr()
			_, _ = c.Write(buf)
		}
	}()
	return func() { _ = ln.Close() }, nil
}

// dial connects from an address of the namespace's.
func dial(ns *nettest.NS, network string, from netip.Addr, to netip.AddrPort) (c net.Conn, err error) {
	var local net.Addr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	if network == "udp" {
		local = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	d := net.Dialer{LocalAddr: local, Timeout: 3 * time.Second}
	ns.Do(func() { c, err = d.Dial(network, to.String()) })
	return c, err
}
