// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/internal/nl"
)

// laneMAC is what all VXLAN lane devices have for an address.
var laneMAC = net.HardwareAddr{0x0e, 0x5e, 0xa1, 0, 0, 1}

const (
	vxlanPort = 4789
	vxlanVNI  = 5154
	stranger  = 66 // a machine on the underlay that is no node
)

// underlay puts nodes and a stranger, by number, on one wire.
func underlay(t *testing.T, numbers map[int]*nettest.NS) {
	t.Helper()
	wire := nettest.NewNS(t)
	wire.Run("ip", "link", "add", "br0", "type", "bridge")
	wire.Run("ip", "link", "set", "br0", "up")
	macs := map[int]net.HardwareAddr{}
	for number, ns := range numbers {
		near, far := nettest.Wire(t, nettest.End{NS: ns, Name: "eth0"}, nettest.End{NS: wire})
		macs[number] = near.MAC
		wire.Run("ip", "link", "set", far.Name, "master", "br0")
		settle(t, ns, "eth0")
		settle(t, wire, far.Name)
	}
	for number, ns := range numbers {
		l, err := ns.Handle().LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		for peer, mac := range macs {
			for _, f := range families {
				if peer == number {
					continue
				}
				for _, err := range []error{
					ns.Handle().EnsureNeighbor(l.Index, f.nodeAddr(peer), mac),
					ns.Handle().ReplaceRoute(nl.Route{Dst: single(f.nodeAddr(peer)), Device: l.Index, Src: f.nodeAddr(number)}),
				} {
					if err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
}

// addVXLAN makes the lane to a peer whose underlay address is of the outer family.
func (n *node) addVXLAN(peer int, outer family) {
	n.t.Helper()
	if err := n.Handle().AddVXLAN(nl.VXLAN{Name: laneName, MAC: laneMAC, MTU: laneMTU, Port: vxlanPort}); err != nil {
		n.t.Fatal(err)
	}
	n.lane = n.link(laneName)
	in(n.t, n.NS, func() error { return n.d.AttachTunnel(Device{n.lane.Index, laneName}, L2) })
	if err := n.Handle().SetLink(n.lane.Index, nl.LinkSettings{State: nl.Up}); err != nil {
		n.t.Fatal(err)
	}
	settle(n.t, n.NS, laneName)
	n.reach(peer, Forward{Index: n.lane.Index, Encapsulation: L2, Remote: outer.nodeAddr(peer)})
}

// vxlanPair is two nodes with VXLAN between them, guarded uplinks, and a stranger.
func vxlanPair(t *testing.T, outer family) (a, b *node, third *nettest.NS) {
	t.Helper()
	a, b, third = newNode(t, 1), newNode(t, 2), nettest.NewNS(t)
	lo, err := third.Handle().LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if err := third.Handle().EnsureAddress(lo.Index, single(f.nodeAddr(stranger))); err != nil {
			t.Fatal(err)
		}
		awaitLocal(t, third, f.nodeAddr(stranger))
	}
	underlay(t, map[int]*nettest.NS{1: a.NS, 2: b.NS, stranger: third})
	a.addVXLAN(2, outer)
	b.addVXLAN(1, outer)
	for _, n := range []*node{a, b} {
		in(t, n.NS, func() error { return n.d.AttachUplink(Device{n.link("eth0").Index, "eth0"}, L2) })
	}
	return a, b, third
}

func TestPrivilegedVXLAN(t *testing.T) {
	for _, outer := range families {
		t.Run("over "+outer.name, func(t *testing.T) {
			a, b, _ := vxlanPair(t, outer)
			from, to := a.pod(2), b.pod(2)
			backends := map[netip.AddrPort]netip.AddrPort{}
			for i, f := range families {
				backends[port(f.service(atRemote), 80)] = port(to.addrs[i], 7)
			}
			a.kubeProxy(backends)
			each(t, func(t *testing.T, i int, f family) {
				far := port(to.addrs[i], 7)
				serve(t, to.NS, far)
				serve(t, from.NS, port(from.addrs[i], 7))
				serve(t, b.NS, port(f.nodeAddr(2), 7))
				by := func(f func(), want ...Path) Counters {
					t.Helper()
					var atB Counters
					atA := counted(t, a.d, func() { atB = counted(t, b.d, f) })
					wantPaths(t, atA, want...)
					wantDrops(t, atB)
					return atA
				}
				c := by(func() { echoTCP(t, from.NS, far, large) }, PathLaneOut, PathLaneIn)
				wantLargeSegments(t, c.Paths[PathLaneOut])
				by(func() { echoUDP(t, from.NS, far, 1, 100, mtu) }, PathLaneOut, PathLaneIn)
				by(func() { echoUDP(t, from.NS, far, 5000, 60000) }, PathStackOut, PathStackIn)
				by(func() { ping(t, from.NS, far.Addr(), 56) }, PathLaneOut, PathLaneIn)
				service := port(f.service(atRemote), 80)
				by(func() { echoTCP(t, from.NS, service, large) }, PathStackOut, PathStackIn)
				by(func() { echoUDP(t, from.NS, service, 1, mtu, 5000) }, PathStackOut, PathStackIn)
				by(func() { echoTCP(t, from.NS, port(f.nodeAddr(2), 7), large) }, PathStackOut, PathStackIn)
				by(func() { echoTCP(t, b.NS, port(from.addrs[i], 7), large) }, PathLaneOut, PathLaneIn)
			})
		})
	}
}

// TestPrivilegedVXLANSoftwareChecksums has the sender compute checksums itself, as
// cards without offload make it do. The receiver then keeps the sum over the whole
// packet beside it, and everything that is changed in the packet must agree.
func TestPrivilegedVXLANSoftwareChecksums(t *testing.T) {
	for _, outer := range families {
		t.Run("over "+outer.name, func(t *testing.T) {
			a, b, _ := vxlanPair(t, outer)
			from, to := b.pod(2), a.pod(2)
			for _, device := range []string{"eth0", laneName} {
				ethtool(t, b.NS, device, [2]uint32{unix.ETHTOOL_STXCSUM, 0})
			}
			each(t, func(t *testing.T, i int, _ family) {
				serve(t, to.NS, port(to.addrs[i], 7))
				echoUDP(t, from.NS, port(to.addrs[i], 7), 1, 99, 100, mtu, 5000)
				echoTCP(t, from.NS, port(to.addrs[i], 7), large)
				ping(t, from.NS, to.addrs[i], 1000)
			})
		})
	}
}

// vxlan is what a VXLAN datagram holds (RFC 7348, 5): its header and a frame.
func vxlan(vni uint32, inner datagram) string {
	kind := []byte{0x08, 0x00}
	if inner.From.Addr().Is6() {
		kind = []byte{0x86, 0xdd}
	}
	header := []byte{0x08, 0, 0, 0, byte(vni >> 16), byte(vni >> 8), byte(vni), 0}
	return string(bytes.Join([][]byte{header, laneMAC, hostMAC, kind, inner.bytes()}, nil))
}

// TestPrivilegedVXLANSource sends the same inner packet from the node that it
// belongs to, from another machine, and in another virtual network.
func TestPrivilegedVXLANSource(t *testing.T) {
	for _, outer := range families {
		t.Run("over "+outer.name, func(t *testing.T) {
			a, b, third := vxlanPair(t, outer)
			p := a.pod(2)
			to := port(outer.nodeAddr(1), vxlanPort)
			each(t, func(t *testing.T, i int, f family) {
				inner := datagram{port(f.podAddr(2, 9), 5000), port(p.addrs[i], 4000), 64, ""}
				var c net.PacketConn
				in(t, p.NS, func() (err error) {
					c, err = net.ListenPacket("udp", inner.To.String())
					return err
				})
				defer c.Close()
				good := inner
				good.Payload = "good"
				for name, send := range map[string]func(datagram){
					"another machine": func(d datagram) {
						sendUDP(t, third, port(outer.nodeAddr(stranger), 1234), to, vxlan(vxlanVNI, d))
					},
					"another network": func(d datagram) {
						sendUDP(t, b.NS, port(outer.nodeAddr(2), 1234), to, vxlan(99, d))
					},
				} {
					bad := inner
					bad.Payload = name
					got := counted(t, a.d, func() {
						awaitDrop(t, a.d, ReasonLaneSource, func() { send(bad) })
						sendUDP(t, b.NS, port(outer.nodeAddr(2), 1234), to, vxlan(vxlanVNI, good))
						_ = c.SetReadDeadline(time.Now().Add(patience))
						buf := make([]byte, 100)
						if size, _, err := c.ReadFrom(buf); err != nil || string(buf[:size]) != "good" {
							t.Errorf("%s: the pod got %q (%v)", name, buf[:size], err)
						}
					})
					wantDrops(t, got, ReasonLaneSource)
				}
			})
		})
	}
}
