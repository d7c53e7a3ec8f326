// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/internal/nettest"
)

// service gives the i-th service address of a family.
func (f family) service(i int) netip.Addr {
	if f.name == "IPv4" {
		return netip.MustParseAddr(fmt.Sprintf("10.96.0.%d", i))
	}
	return netip.MustParseAddr(fmt.Sprintf("fd00:96::%d", i))
}

// kubeProxy makes services of a node as kube-proxy does in its nftables mode:
// destination translated before routing, what is not valid dropped, the source
// translated where the answer would not come back.
func (n *node) kubeProxy(backends map[netip.AddrPort]netip.AddrPort) {
	n.t.Helper()
	var rules strings.Builder
	rules.WriteString("table inet proxy {\n chain pre { type nat hook prerouting priority dstnat;\n")
	dnat := func() {
		for service, backend := range backends {
			ip := "ip"
			if service.Addr().Is6() {
				ip = "ip6"
			}
			for _, l4 := range []string{"tcp", "udp"} {
				fmt.Fprintf(&rules, "  %s daddr %s %s dport %d dnat %s to %s\n", ip, service.Addr(), l4, service.Port(), ip, backend)
			}
		}
		rules.WriteString(" }\n")
	}
	dnat()
	rules.WriteString(" chain out { type nat hook output priority -100;\n")
	dnat()
	rules.WriteString(" chain forward { type filter hook forward priority 0; ct state invalid counter drop; }\n")
	rules.WriteString(" chain post { type nat hook postrouting priority srcnat;\n")
	for _, f := range families {
		ip := map[string]string{"IPv4": "ip", "IPv6": "ip6"}[f.name]
		fmt.Fprintf(&rules, "  ct status dnat %s saddr != %s masquerade\n", ip, f.cluster) // from outside, by a node port
		for _, backend := range backends {
			if backend.Addr().Is4() == (ip == "ip") { // hairpin: a pod that calls itself
				fmt.Fprintf(&rules, "  %s saddr %s %s daddr %s masquerade\n", ip, backend.Addr(), ip, backend.Addr())
			}
		}
	}
	rules.WriteString(" }\n}\n")
	n.nft(rules.String())
}

// services are two nodes with a client on the first, which knows services with a
// backend beside the client, one on the other node, and one that is closed.
type services struct {
	a, b                  *node
	client, local, remote *pod
}

const (
	atLocal, atRemote, atClosedLocal, atClosedRemote = 10, 20, 30, 40
	closed                                           = 9 // a port that nobody serves
)

func newServices(t *testing.T) services {
	t.Helper()
	a, b := pair(t)
	s := services{a: a, b: b, client: a.pod(2), local: a.pod(3), remote: b.pod(2)}
	backends := map[netip.AddrPort]netip.AddrPort{}
	for i, f := range families {
		for service, backend := range map[int]netip.AddrPort{
			atLocal: port(s.local.addrs[i], 7), atRemote: port(s.remote.addrs[i], 7),
			atClosedLocal: port(s.local.addrs[i], closed), atClosedRemote: port(s.remote.addrs[i], closed),
		} {
			backends[port(f.service(service), 80)] = backend
			backends[port(f.nodeAddr(1), 30000+uint16(service))] = backend
		}
		serve(t, s.local.NS, port(s.local.addrs[i], 7))
		serve(t, s.remote.NS, port(s.remote.addrs[i], 7))
	}
	a.kubeProxy(backends)
	return s
}

func TestPrivilegedServices(t *testing.T) {
	s := newServices(t)
	each(t, func(t *testing.T, i int, f family) {
		for service, backend := range map[int]*pod{atLocal: s.local, atRemote: s.remote} {
			to := port(f.service(service), 80)
			by := func(f func(), want ...Path) {
				t.Helper()
				wantPaths(t, counted(t, s.a.d, f), want...)
			}
			// Sockets take answers from the service's address only, so each echo
			// was translated both ways.
			by(func() { echoTCP(t, s.client.NS, to, large) }, PathStackOut, PathStackIn)
			by(func() { echoUDP(t, s.client.NS, to, 1, 100, mtu, 5000, 60000, 100) }, PathStackOut, PathStackIn)
			// The same two pods without a service: the short way, now and after.
			direct := []Path{PathLocal}
			if backend == s.remote {
				direct = []Path{PathLaneOut, PathLaneIn}
			}
			by(func() { echoTCP(t, s.client.NS, port(backend.addrs[i], 7), large) }, direct...)
			by(func() { echoUDP(t, s.client.NS, port(backend.addrs[i], 7), 1, mtu) }, direct...)
			by(func() { echoTCP(t, s.client.NS, to, 1000) }, PathStackOut, PathStackIn)
		}
	})
}

// TestPrivilegedPortUsedTwice sends from one port to a backend directly and by
// way of its service: the second use has to change the way of the flow.
func TestPrivilegedPortUsedTwice(t *testing.T) {
	s := newServices(t)
	each(t, func(t *testing.T, i int, f family) {
		for service, backend := range map[int]*pod{atLocal: s.local, atRemote: s.remote} {
			for n, to := range []netip.AddrPort{
				port(backend.addrs[i], 7), port(f.service(service), 80), port(backend.addrs[i], 7), port(f.service(service), 80),
			} {
				c := dialFrom(t, s.client.NS, "tcp", port(s.client.addrs[i], 3333), to)
				exchange(t, c, 100+n)
				abort(t, c)
			}
		}
	})
}

func dialFrom(t *testing.T, ns *nettest.NS, network string, from, to netip.AddrPort) net.Conn {
	t.Helper()
	d := net.Dialer{Timeout: patience, Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd int) error {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
				return err
			}
			if from.Addr().Is6() {
				return unix.Bind(fd, &unix.SockaddrInet6{Port: int(from.Port()), Addr: from.Addr().As16()})
			}
			return unix.Bind(fd, &unix.SockaddrInet4{Port: int(from.Port()), Addr: from.Addr().As4()})
		})
	}}
	var c net.Conn
	in(t, ns, func() (err error) {
		c, err = d.DialContext(t.Context(), network, to.String())
		return err
	})
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// abort closes a connection by a reset, so that its port is free at once.
func abort(t *testing.T, c net.Conn) {
	t.Helper()
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		t.Fatal("no TCP connection")
	}
	if err := errors.Join(tcp.SetLinger(0), tcp.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestPrivilegedHairpin has a pod call the service that it is the backend of.
func TestPrivilegedHairpin(t *testing.T) {
	s := newServices(t)
	each(t, func(t *testing.T, _ int, f family) {
		echoTCP(t, s.local.NS, port(f.service(atLocal), 80), large)
		echoUDP(t, s.local.NS, port(f.service(atLocal), 80), 1, mtu, 5000)
	})
}

// TestPrivilegedServicesFromNode calls services from the node itself.
func TestPrivilegedServicesFromNode(t *testing.T) {
	s := newServices(t)
	each(t, func(t *testing.T, _ int, f family) {
		for _, service := range []int{atLocal, atRemote} {
			echoTCP(t, s.a.NS, port(f.nodeAddr(1), 30000+uint16(service)), large)
			echoUDP(t, s.a.NS, port(f.nodeAddr(1), 30000+uint16(service)), 1, mtu)
		}
	})
}

// TestPrivilegedNodePort calls from outside, through an uplink with the leak guard.
func TestPrivilegedNodePort(t *testing.T) {
	s := newServices(t)
	outside := s.a.uplink("eth0")
	each(t, func(t *testing.T, _ int, f family) {
		for _, service := range []int{atLocal, atRemote} {
			wantDrops(t, counted(t, s.a.d, func() {
				echoTCP(t, outside, port(f.nodeAddr(1), 30000+uint16(service)), large)
				c := dial(t, outside, "udp", port(f.nodeAddr(1), 30000+uint16(service)))
				exchange(t, c, 1)
				exchange(t, c, mtu)
				if f.name == "IPv6" && service == atLocal {
					learnMTU(t, c) // no router fragments
				}
				exchange(t, c, 5000)
			}))
		}
	})
}

// learnMTU sends fragments that are too large for a pod's device, and wants to be told.
func learnMTU(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Write(payload(5000)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.EMSGSIZE) {
		t.Fatalf("read %d bytes (%v), want to be told that the packet is too big", n, err)
	}
}

// TestPrivilegedForgottenFlows empties the table of flows under running traffic.
func TestPrivilegedForgottenFlows(t *testing.T) {
	s := newServices(t)
	each(t, func(t *testing.T, i int, f family) {
		for name, to := range map[string]netip.AddrPort{
			"local": port(s.local.addrs[i], 7), "remote": port(s.remote.addrs[i], 7),
			"local service": port(f.service(atLocal), 80), "remote service": port(f.service(atRemote), 80),
		} {
			for _, network := range []string{"tcp", "udp"} {
				t.Run(name+" "+network, func(t *testing.T) {
					c := dial(t, s.client.NS, network, to)
					for range 5 {
						exchange(t, c, 1000)
						forgetFlows(t, s.a.d)
						forgetFlows(t, s.b.d)
					}
				})
			}
		}
	})
}

// TestPrivilegedForgottenBeforeAnswer empties the table of flows between a request
// and its answer. That answer may be lost; those of later requests may not.
func TestPrivilegedForgottenBeforeAnswer(t *testing.T) {
	s := newServices(t)
	each(t, func(t *testing.T, i int, f family) {
		for service, backend := range map[int]*pod{atClosedLocal: s.local, atClosedRemote: s.remote} {
			var server net.PacketConn
			in(t, backend.NS, func() (err error) {
				server, err = net.ListenPacket("udp", port(backend.addrs[i], closed).String())
				return err
			})
			client := dial(t, s.client.NS, "udp", port(f.service(service), 80))
			var from net.Addr
			request := func(text string) {
				t.Helper()
				buf := make([]byte, 100)
				_ = server.SetReadDeadline(time.Now().Add(patience))
				if _, err := client.Write([]byte(text)); err != nil {
					t.Fatal(err)
				}
				n, peer, err := server.ReadFrom(buf)
				if err != nil || string(buf[:n]) != text {
					t.Fatalf("the server got %q (%v), want %q", buf[:n], err, text)
				}
				from = peer
			}
			request("first")
			forgetFlows(t, s.a.d)
			forgetFlows(t, s.b.d)
			if _, err := server.WriteTo([]byte("perhaps lost"), from); err != nil {
				t.Fatal(err)
			}
			request("second")
			if _, err := server.WriteTo([]byte("answer"), from); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			for got := ""; got != "answer"; {
				n, err := client.Read(buf)
				if err != nil {
					t.Fatalf("service %d: the answer to a later request never came: %v", service, err)
				}
				got = string(buf[:n])
			}
			if err := server.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func forgetFlows(t *testing.T, d *Datapath) {
	t.Helper()
	var keys []podFlow
	var k podFlow
	var v podFlowState
	it := d.maps.SlFlows.Iterate()
	for it.Next(&k, &v) {
		keys = append(keys, k)
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if err := d.maps.SlFlows.Delete(k); err != nil {
			t.Fatal(err)
		}
	}
}
