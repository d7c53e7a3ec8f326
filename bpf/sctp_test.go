// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build kernels

package bpf

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/overlay/service"
	"github.com/sealane/sealane/policy"
)

// socketSCTP makes a socket for one association (RFC 6458, one-to-one style) at an
// address. It is bound to that one: an association would tell its peer all others
// of the pod.
func socketSCTP(at netip.AddrPort) (int, error) {
	domain := unix.AF_INET
	if at.Addr().Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return 0, fmt.Errorf("open SCTP socket: %w", err)
	}
	for _, set := range []func() error{
		func() error { return unix.Bind(fd, sockaddr(at)) },
		// Closing aborts: nothing of an association comes when the next one is looked at.
		func() error {
			return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		},
		func() error {
			timeout := unix.NsecToTimeval(patience.Nanoseconds())
			return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout) // of connect
		},
	} {
		if err := set(); err != nil {
			return 0, errors.Join(fmt.Errorf("set up SCTP socket at %s: %w", at, err), unix.Close(fd))
		}
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// handOver has the runtime's poller take a socket. It takes SCTP's, whose reads and
// writes are messages, for TCP's.
func handOver[T any](fd int, take func(*os.File) (T, error)) (T, error) {
	f := os.NewFile(uintptr(fd), "sctp")
	defer func() { _ = f.Close() }() // take makes a copy
	return take(f)
}

// serveSCTP echoes messages on the port of the address until the test ends.
func serveSCTP(t testing.TB, ns *nettest.NS, at netip.AddrPort) {
	t.Helper()
	var l net.Listener
	in(t, ns, func() error {
		fd, err := socketSCTP(at)
		if err != nil {
			return err
		}
		if err := unix.Listen(fd, 10); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		l, err = handOver(fd, net.FileListener)
		return err
	})
	t.Cleanup(func() { _ = l.Close() })
	go answerAll(l, func(conn net.Conn) { echoMessages(conn) })
}

func echoMessages(conn io.ReadWriter) {
	buf := make([]byte, 1<<16)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return
		}
	}
}

// connect waits for the association also after a signal, of which the Go runtime sends some.
func connect(fd int, to netip.AddrPort) error {
	err := unix.Connect(fd, sockaddr(to))
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for errors.Is(err, unix.EINTR) {
		var n int
		if n, err = unix.Poll(ready, int(patience.Milliseconds())); err != nil {
			continue
		}
		if n == 0 {
			return unix.ETIMEDOUT
		}
		if code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			return errors.Join(err, unix.Errno(code))
		}
	}
	return err
}

// associate opens an association from a pod's address.
func associate(ns *nettest.NS, from netip.Addr, to netip.AddrPort) (c net.Conn, err error) {
	err = ns.Handle().Do(func() error {
		fd, err := socketSCTP(port(from, 0))
		if err != nil {
			return err
		}
		if err := connect(fd, to); err != nil {
			return errors.Join(fmt.Errorf("SCTP to %s: %w", to, err), unix.Close(fd))
		}
		c, err = handOver(fd, net.FileConn)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(patience))
}

// dialSCTP opens an association that lasts until the test ends.
func dialSCTP(t testing.TB, p *pod, to netip.AddrPort) net.Conn {
	t.Helper()
	from := p.addrs[0]
	if to.Addr().Is6() {
		from = p.addrs[1]
	}
	c, err := associate(p.NS, from, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestPrivilegedPolicySCTP opens associations that one rule lets pass and others
// do not.
func TestPrivilegedPolicySCTP(t *testing.T) {
	s := newPoliced(t)
	for _, p := range s.server {
		for i := range families {
			serveSCTP(t, p.NS, port(p.addrs[i], 7))
			serveSCTP(t, p.NS, port(p.addrs[i], 8))
		}
	}
	s.each(t, func(t *testing.T, client, server []netip.Addr, to netip.Addr) {
		rule := func(ports ...policy.Ports) policy.Tables {
			tables := allowed(client, server)
			tables.Ports[echoPort] = ports
			return tables
		}
		seven := rule(policy.Ports{Protocol: protoSCTP, First: 7, Last: 7})
		s.guard(t, seven)
		c := dialSCTP(t, s.client, port(to, 7))
		exchange(t, c, 100)
		exchange(t, c, 5000) // several packets
		for name, tc := range map[string]struct {
			tables policy.Tables
			port   uint16
		}{
			"no rule":          {isolated(client, server), 7},
			"another port":     {seven, 8},
			"TCP on that port": {rule(policy.Ports{Protocol: protoTCP, First: 7, Last: 7}), 7},
			"UDP on all ports": {rule(policy.Ports{Protocol: protoUDP, First: 1, Last: 65535}), 7},
		} {
			t.Run(name, func(t *testing.T) {
				s.refusesSCTP(t, tc.tables, port(to, tc.port))
				s.guard(t, rule(policy.Ports{Protocol: protoSCTP, First: 7, Last: 8}))
				exchange(t, dialSCTP(t, s.client, port(to, tc.port)), 100)
			})
		}
		// What was begun when it was allowed ends with that, and goes on with it.
		s.guard(t, rule(policy.Ports{Protocol: protoTCP, First: 7, Last: 7}))
		before := s.drops(t)
		if _, err := c.Write(payload(100)); err != nil {
			t.Fatal(err)
		}
		s.awaitDropped(t, before)
		unheard(t, c)
		s.guard(t, seven)
		if n, err := c.Read(make([]byte, 1<<16)); n != 100 || err != nil {
			t.Fatalf("%d bytes of what was sent again came: %v", n, err)
		}
	})
}

// refusesSCTP wants that an association comes to nothing as long as these tables
// are in force.
func (s policed) refusesSCTP(t *testing.T, tables policy.Tables, to netip.AddrPort) {
	t.Helper()
	s.guard(t, tables)
	before := s.drops(t)
	from := s.client.addrs[0]
	if to.Addr().Is6() {
		from = s.client.addrs[1]
	}
	var fd int
	in(t, s.client.NS, func() (err error) {
		fd, err = socketSCTP(port(from, 0))
		return errors.Join(err, unix.SetNonblock(fd, true))
	})
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Connect(fd, sockaddr(to)); !errors.Is(err, unix.EINPROGRESS) {
		t.Fatalf("association to %s: %v, want it to be in progress", to, err)
	}
	s.awaitDropped(t, before)
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 100); n != 0 || err != nil {
		t.Errorf("association to %s: it came to something (%v)", to, err)
	}
}

// TestPrivilegedBalancedSCTP: the client's association knows the service's address
// alone, so each echo was translated both ways.
func TestPrivilegedBalancedSCTP(t *testing.T) {
	s := newBalanced(t)
	each(t, func(t *testing.T, i int, f family) {
		at := port(f.service(70), 7)
		for _, tc := range []struct {
			name    string
			ns      *nettest.NS
			backend netip.Addr
			paths   []Path
		}{
			{"beside the client", s.local.NS, s.local.addrs[i], []Path{PathLocal}},
			{"on the other node", s.remote.NS, s.remote.addrs[i], []Path{PathLaneOut, PathLaneIn}},
			{"the client itself", s.client.NS, s.client.addrs[i], []Path{PathLocal}},
			{"the own node", s.a.NS, f.nodeAddr(1), []Path{PathStackOut, PathStackIn}},
			{"the other node", s.b.NS, f.nodeAddr(2), []Path{PathStackOut, PathStackIn}},
			{"outside", s.outside, f.outsideAddr(), []Path{PathStackOut, PathStackIn}},
		} {
			t.Run(tc.name, func(t *testing.T) {
				serveSCTP(t, tc.ns, port(tc.backend, 7))
				want := map[service.Frontend]service.Service{
					{Address: at, Protocol: protoSCTP}: {Backends: []netip.AddrPort{port(tc.backend, 7)}},
				}
				if err := s.a.d.ApplyServices(want, nil); err != nil {
					t.Fatal(err)
				}
				wantPaths(t, counted(t, s.a.d, func() {
					c := dialSCTP(t, s.client, at)
					for _, size := range []int{1, 100, mtu, 5000} {
						exchange(t, c, size)
					}
				}), tc.paths...)
			})
		}
	})
}
