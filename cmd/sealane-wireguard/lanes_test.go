// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/overlay/wireguard/process"
)

func TestPrivilegedLanesCarryEachFamily(t *testing.T) {
	for _, families := range []string{"4", "6", "46"} {
		t.Run("IPv"+families, func(t *testing.T) {
			l := newLab(t, families, 3)
			l.applyAll()
			l.reach(l.nodes[0], l.nodes[1])
			l.reach(l.nodes[0], l.nodes[2])
			l.reach(l.nodes[1], l.nodes[2])
			for _, n := range l.nodes {
				n.checkDevices()
			}
		})
	}
}

// checkDevices wants the lanes to look as others rely on.
func (n *node) checkDevices() {
	t := n.lab.t
	t.Helper()
	want := n.plan(n.lab.nodes...)
	states := n.observe()
	if len(states) != 2 {
		t.Fatalf("%s has the lanes %+v, want two", n.id.Name, states)
	}
	for i, s := range states {
		lane := want.Tunnels[i]
		l, err := n.ns.Handle().LinkByName(lane.Device)
		if err != nil {
			t.Fatal(err)
		}
		if s.Device != lane.Device || s.Port != lane.Port || s.MTU != want.MTU || !s.Up || !s.Encrypted || len(s.Peers) != len(lane.Peers) {
			t.Errorf("%s: %+v, want %s with %d peers", n.id.Name, s, lane, len(lane.Peers))
		}
		if s.Key != n.key.Key() {
			t.Errorf("%s: lane has key %s", n.id.Name, s.Key)
		}
		if l.Group != overlay.DeviceGroup || l.Alias == "" {
			t.Errorf("%s: %+v", n.id.Name, l)
		}
		if got, err := n.ns.Handle().Addresses(l.Index); err != nil || fmt.Sprint(got) != fmt.Sprint(want.Addresses) {
			t.Errorf("%s: %s has %v, want %v and no link-local one (%v)", n.id.Name, l.Name, got, want.Addresses, err)
		}
		if v, err := n.ns.Handle().Sysctl("net/ipv4/conf/" + l.Name + "/rp_filter"); err != nil || v != "2" {
			t.Errorf("%s: rp_filter of %s is %q (%v)", n.id.Name, l.Name, v, err)
		}
	}
}

// TestPrivilegedFullPackets sends what just fits, not to be fragmented.
func TestPrivilegedFullPackets(t *testing.T) {
	l := newLab(t, "46", 2)
	l.applyAll()
	a, b := l.nodes[0], l.nodes[1]
	mtu := a.plan(b).MTU
	for i, to := range l.pods(b.n) {
		header := map[bool]int{true: 28, false: 48}[to.Is4()]
		from := l.pods(a.n)[i].String()
		a.ns.Run("ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", fmt.Sprint(mtu-header), "-I", from, to.String())
		if out, err := a.ns.Try("ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", fmt.Sprint(mtu-header+1), "-I", from, to.String()); err == nil {
			t.Errorf("a packet of %d bytes went through a lane of %d: %s", mtu+1, mtu, out)
		}
	}
}

func TestPrivilegedDaemonRestartChangesNothing(t *testing.T) {
	l := newLab(t, "46", 2)
	l.applyAll()
	a, b := l.nodes[0], l.nodes[1]
	l.reach(a, b)
	before := a.observe()
	a.startDaemon()
	a.apply(l.nodes...)
	after := a.observe()
	if len(before) != len(after) {
		t.Fatalf("lanes %+v, then %+v", before, after)
	}
	for i := range before {
		for j, p := range before[i].Peers {
			q := after[i].Peers[j]
			if p.LastHandshake != q.LastHandshake || p.Sent != q.Sent || p.Endpoint != q.Endpoint {
				t.Errorf("peer %+v, then %+v", p, q)
			}
		}
		if before[i].Index != after[i].Index || before[i].Key != after[i].Key {
			t.Errorf("lane %+v, then %+v", before[i], after[i])
		}
	}
}

func TestPrivilegedPeerMoves(t *testing.T) {
	l := newLab(t, "46", 3)
	l.applyAll()
	a, b, c := l.nodes[0], l.nodes[1], l.nodes[2]
	l.reach(a, b)
	index := a.indexes()
	for _, old := range b.address {
		b.ns.Run("ip", "addr", "del", old.String()+map[bool]string{true: "/24", false: "/64"}[old.Is4()], "dev", "eth0")
	}
	b.address = l.nodeAddresses(20)
	for _, now := range b.address {
		b.ns.Run("ip", "addr", "add", now.String()+map[bool]string{true: "/24", false: "/64"}[now.Is4()], "dev", "eth0", "nodad")
	}
	l.applyAll()
	l.reach(a, b)
	l.reach(c, b)
	if diff := cmp.Diff(index, a.indexes()); diff != "" {
		t.Errorf("devices were made anew (-before +after):\n%s", diff)
	}
}

func TestPrivilegedPeerGoes(t *testing.T) {
	l := newLab(t, "46", 3)
	l.applyAll()
	a, b, c := l.nodes[0], l.nodes[1], l.nodes[2]
	l.reach(a, c)
	a.apply(b)
	l.reach(a, b)
	l.refused(a, c)
	for i, to := range l.pods(a.n) {
		if err := c.ping(l.pods(c.n)[i], to); err == nil {
			t.Errorf("a node that is no peer any more still gets an answer from %s", to)
		}
	}
	a.apply(b, c)
	l.reach(a, c)
}

// TestPrivilegedProcessRestart ends the process in both ways. Devices, addresses
// and routes stay; nothing leaves in the clear; and with traffic in one direction
// only, which is the worst case, packets flow again as soon as the daemon has heard
// of the new process.
func TestPrivilegedProcessRestart(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			l := newLab(t, "46", 2)
			l.applyAll()
			a, b := l.nodes[0], l.nodes[1]
			l.reach(a, b)
			for _, victim := range []*node{a, b} {
				restartProcess(t, victim, sig)
			}
		})
	}
}

func restartProcess(t *testing.T, victim *node, sig os.Signal) {
	t.Helper()
	l := victim.lab
	other := l.nodes[2-victim.n]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	started := victim.lanes.Watch(ctx)
	await(t, started, "the running process")
	index, routes := victim.indexes(), victim.ns.Run("ip", "route", "show", "proto", "94")
	victim.stopProcess(sig)
	if diff := cmp.Diff(index, victim.indexes()); diff != "" {
		t.Errorf("devices changed (-before +after):\n%s", diff)
	}
	if err := victim.ping(l.pods(victim.n)[0], l.pods(other.n)[0]); err == nil {
		t.Error("packets travel without the process")
	}
	victim.startProcess()
	await(t, started, "the new process")
	victim.apply(l.nodes...)
	received := listen(t, victim, l.pods(victim.n)[0])
	deadline := time.After(4 * time.Second)
	for arrived := false; !arrived; {
		sendDatagram(t, other, l.pods(other.n)[0], l.pods(victim.n)[0])
		select {
		case <-received:
			arrived = true
		case <-deadline:
			t.Fatal("no packet for 4 s: the peer was not called")
		case <-time.After(20 * time.Millisecond):
		}
	}
	l.reach(victim, other)
	if diff := cmp.Diff(index, victim.indexes()); diff != "" {
		t.Errorf("devices changed (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(routes, victim.ns.Run("ip", "route", "show", "proto", "94")); diff != "" {
		t.Errorf("routes changed (-before +after):\n%s", diff)
	}
}

func await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatalf("no report of %s", what)
	}
}

const datagramPort = 9

// listen reports the first datagrams that reach the node's pod.
func listen(t *testing.T, n *node, at netip.Addr) chan struct{} {
	t.Helper()
	var c *net.UDPConn
	var err error
	n.ns.Do(func() { c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, datagramPort))) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	received := make(chan struct{}, 1)
	go func() {
		buf := make([]byte, 16)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
			select {
			case received <- struct{}{}:
			default:
			}
		}
	}()
	return received
}

func sendDatagram(t *testing.T, n *node, from, to netip.Addr) {
	t.Helper()
	var err error
	n.ns.Do(func() {
		d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
		var c net.Conn
		if c, err = d.Dial("udp", netip.AddrPortFrom(to, datagramPort).String()); err == nil {
			_, err = c.Write([]byte("x"))
			_ = c.Close()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestPrivilegedMasquerade looks at the source that arrives.
func TestPrivilegedMasquerade(t *testing.T) {
	l := newLab(t, "46", 2)
	l.applyAll()
	a, b := l.nodes[0], l.nodes[1]
	outside := nettest.NewNS(t)
	l.plug(outside, "outside", l.nodeAddresses(99))
	// A source that is neither a pod's nor the node's, as a NodePort's client is.
	foreign := pick(l, netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8:ffff::7"))
	for i := range foreign {
		a.ns.Run("ip", "addr", "add", foreign[i].String(), "dev", "lo")
		for _, tt := range []struct {
			name         string
			at           *nettest.NS
			from, to, as netip.Addr
		}{
			{"pod to the outside", outside, l.pods(a.n)[i], l.nodeAddresses(99)[i], a.address[i]},
			{"pod to pod", b.ns, l.pods(a.n)[i], l.pods(b.n)[i], l.pods(a.n)[i]},
			{"pod to node", b.ns, l.pods(a.n)[i], b.address[i], a.address[i]},
			{"node to pod", b.ns, a.address[i], l.pods(b.n)[i], a.address[i]},
			{"foreign source to pod", b.ns, foreign[i], l.pods(b.n)[i], a.address[i]},
		} {
			got, err := sourceSeen(tt.at, a.ns, tt.from, tt.to)
			for deadline := time.Now().Add(10 * time.Second); errors.Is(err, unix.EADDRNOTAVAIL) && time.Now().Before(deadline); {
				got, err = sourceSeen(tt.at, a.ns, tt.from, tt.to) // the kernel makes an IPv6 address its own at leisure
			}
			if err != nil || got != tt.as {
				t.Errorf("%s (%s to %s): arrived from %s, want %s (%v)", tt.name, tt.from, tt.to, got, tt.as, err)
			}
		}
	}
}

// sourceSeen connects over TCP and returns the address that the listener sees.
func sourceSeen(at, client *nettest.NS, from, to netip.Addr) (netip.Addr, error) {
	var ln net.Listener
	var err error
	at.Do(func() { ln, err = net.Listen("tcp", netip.AddrPortFrom(to, 8080).String()) })
	if err != nil {
		return netip.Addr{}, err
	}
	defer func() { _ = ln.Close() }()
	client.Do(func() {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: 3 * time.Second}
		var c net.Conn
		if c, err = d.Dial("tcp", netip.AddrPortFrom(to, 8080).String()); err == nil {
			_ = c.Close()
		}
	})
	if err != nil {
		return netip.Addr{}, err
	}
	c, err := ln.Accept()
	if err != nil {
		return netip.Addr{}, err
	}
	defer func() { _ = c.Close() }()
	return netip.MustParseAddrPort(c.RemoteAddr().String()).Addr(), nil
}

// TestPrivilegedWrongKey: a device that another generation left behind is made
// anew, never given another key.
func TestPrivilegedWrongKey(t *testing.T) {
	l := newLab(t, "4", 2)
	l.applyAll()
	a, b := l.nodes[0], l.nodes[1]
	l.reach(a, b)
	before := a.lane(b).Index
	out := a.ns.Command("wg", "set", a.lane(b).Name, "private-key", "/dev/stdin")
	out.Stdin = strings.NewReader(a.key.Key().String())
	if text, err := out.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	a.apply(l.nodes...)
	l.reach(a, b)
	if a.lane(b).Index == before {
		t.Error("the device is the same as with the wrong key")
	}
}

// TestPrivilegedDeviceIsTakenAway: somebody deletes a lane under the process.
func TestPrivilegedDeviceIsTakenAway(t *testing.T) {
	l := newLab(t, "4", 2)
	l.applyAll()
	a, b := l.nodes[0], l.nodes[1]
	l.reach(a, b)
	a.ns.Run("ip", "link", "del", a.lane(b).Name)
	l.refused(a, b)
	a.apply(l.nodes...)
	l.reach(a, b)
}

func TestPrivilegedClean(t *testing.T) {
	l := newLab(t, "46", 2)
	a := l.nodes[0]
	before := a.ns.Run("ip", "-br", "addr")
	l.applyAll()
	l.reach(a, l.nodes[1])
	for range 2 {
		var err error
		a.ns.Do(func() { err = a.lanes.Clean() })
		if err == nil {
			err = a.host.Clean(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff(before, a.ns.Run("ip", "-br", "addr")); diff != "" {
		t.Errorf("devices or addresses left (-before +after):\n%s", diff)
	}
	for _, what := range [][]string{
		{"ip", "route", "show", "table", "all", "proto", "94"},
		{"ip", "-6", "route", "show", "table", "all", "proto", "94"},
		{"ip", "rule", "show", "priority", "5154"},
		{"ip", "-6", "rule", "show", "priority", "5154"},
		{"nft", "list", "ruleset"},
		{"ls", "/var/run/wireguard"},
	} {
		if out := a.ns.Run(what[0], what[1:]...); out != "" {
			t.Errorf("%v shows:\n%s", what, out)
		}
	}
	if _, devices, err := (process.Client{Socket: a.socket}).List(t.Context()); err != nil || len(devices) != 0 {
		t.Errorf("the process still has %v (%v)", devices, err)
	}
	a.apply(l.nodes...)
	l.reach(a, l.nodes[1])
}

// TestPrivilegedSessionsStandBeforeTraffic: the node whose part it is starts the
// handshake, and the other one only when its device is new.
func TestPrivilegedSessionsStandBeforeTraffic(t *testing.T) {
	l := newLab(t, "46", 2)
	a, b := l.nodes[0], l.nodes[1] // a has the smaller UID
	for _, n := range l.nodes {
		n.apply() // their devices are there, as in a running cluster
	}
	b.apply(a)
	a.apply(b)
	deadline := time.After(10 * time.Second)
	for _, n := range []*node{a, b} {
		for n.peer(0).LastHandshake.IsZero() {
			select {
			case <-deadline:
				t.Fatalf("%s: no handshake: %+v", n.id.Name, n.observe())
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	if got := a.ns.Run("wg", "show", "all", "persistent-keepalive"); !strings.Contains(got, "\t25") {
		t.Errorf("the node that starts handshakes does not keep the session warm:\n%s", got)
	}
	if got := b.ns.Run("wg", "show", "all", "persistent-keepalive"); !strings.Contains(got, "\toff") {
		t.Errorf("the other node would start handshakes by itself:\n%s", got)
	}
}

// peer returns the i-th peer of all lanes.
func (n *node) peer(i int) overlay.PeerState {
	n.lab.t.Helper()
	var all []overlay.PeerState
	for _, s := range n.observe() {
		all = append(all, s.Peers...)
	}
	if len(all) <= i {
		n.lab.t.Fatalf("%s has the peers %+v", n.id.Name, all)
	}
	return all[i]
}

// TestPrivilegedMTUChanges: the process is told, and packets that fit now go through.
func TestPrivilegedMTUChanges(t *testing.T) {
	l := newLab(t, "4", 2)
	l.applyAll()
	a, b := l.nodes[0], l.nodes[1]
	l.reach(a, b)
	index := a.lane(b).Index
	for _, underlay := range []int{1400, 1500} {
		for _, n := range l.nodes {
			n.underlay = underlay
			n.apply(l.nodes...)
		}
		mtu := a.plan(b).MTU
		if got := a.lane(b); got.MTU != mtu || got.Index != index {
			t.Errorf("lane is %+v, want an MTU of %d and no new device", got, mtu)
		}
		_, devices, err := (process.Client{Socket: a.socket}).List(t.Context())
		if err != nil || len(devices) != 2 || devices[0].MTU != mtu {
			t.Errorf("the process has %+v (%v), want an MTU of %d", devices, err, mtu)
		}
		a.ns.Run("ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", fmt.Sprint(mtu-28), "-I", l.pods(a.n)[0].String(), l.pods(b.n)[0].String())
	}
}
