// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package hostnet

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/knftables"

	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/overlay"
)

// street is a node with an uplink to its peer, and a pod behind each of its own devices.
type street struct {
	node, peer, pod, lane, second *nettest.NS
	host                          *Host
}

// newStreet applies a plan at the node: 192.0.2.1, with the peer 192.0.2.2, the pod
// 10.0.1.5 on a device of its own, and the peer's address again at the end of a lane.
func newStreet(t *testing.T, plan overlay.Plan) street {
	t.Helper()
	s := street{node: nettest.NewNS(t), peer: nettest.NewNS(t), pod: nettest.NewNS(t), lane: nettest.NewNS(t), second: nettest.NewNS(t)}
	wire := func(device, own string, far *nettest.NS, there string) {
		nettest.Wire(t, nettest.End{NS: s.node, Name: device, Addresses: prefixes(own)}, nettest.End{NS: far, Name: "eth0", Addresses: prefixes(there)})
	}
	wire("up0", "192.0.2.1/24", s.peer, "192.0.2.2/24")
	wire("slp1", "169.254.1.1/32", s.pod, "10.0.1.5/32")
	wire("sealane-wg00", "192.0.2.1/32", s.lane, "192.0.2.2/32")
	wire("store0", "198.51.100.1/24", s.second, "198.51.100.2/24")
	s.node.Run("ip", "link", "set", "slp1", "group", "24225")
	s.node.Run("ip", "link", "set", "sealane-wg00", "group", "24225")
	s.node.Run("ip", "route", "add", "10.0.1.5/32", "dev", "slp1")
	for _, ns := range []*nettest.NS{s.pod, s.lane} {
		ns.Run("ip", "route", "add", "169.254.1.1/32", "dev", "eth0")
		ns.Run("ip", "route", "add", "default", "via", "169.254.1.1", "dev", "eth0")
	}
	for _, device := range []string{"all", "default", "up0", "slp1", "sealane-wg00", "store0"} {
		s.node.Run("sysctl", "-qw", "net.ipv4.conf."+device+".rp_filter=0")
	}
	s.node.Run("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=0")
	plan.Routes = slices.DeleteFunc(plan.Routes, func(r overlay.Route) bool { return !r.Dst.Addr().Is4() })
	var err error
	if s.host, err = New(s.node.Handle(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	apply(t, s.host, plan)
	return s
}

// listen opens a UDP socket in a namespace, whose datagrams come by the channel.
func listen(t *testing.T, ns *nettest.NS, port int) <-chan string {
	t.Helper()
	var c net.PacketConn
	var err error
	ns.Do(func() { c, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", port)) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	out := make(chan string, 100)
	go func() {
		buf := make([]byte, 100)
		for {
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			out <- string(buf[:n])
		}
	}()
	return out
}

// send sends one datagram.
func send(t *testing.T, ns *nettest.NS, from int, to, text string) {
	t.Helper()
	var err error
	ns.Do(func() {
		var c net.PacketConn
		if c, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", from)); err == nil {
			_, err = c.WriteTo([]byte(text), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
			c.Close()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, from <-chan string, want string) {
	t.Helper()
	select {
	case got := <-from:
		if got != want {
			t.Errorf("%q arrived, want %q", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Errorf("%q did not arrive", want)
	}
}

// drops returns what was dropped for a reason.
func (s street) drops(t *testing.T, reason string) uint64 {
	t.Helper()
	all, err := s.host.Drops(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(d Drop) bool { return d.Reason == reason })
	if i < 0 {
		t.Fatalf("no counter %s in %v", reason, all)
	}
	return all[i].Packets
}

// TestPrivilegedTranslationLeavesLanesAlone: a tenant's translation of our ports, at its
// usual place, gets neither the packets of tunnels nor the connections of pairing.
func TestPrivilegedTranslationLeavesLanesAlone(t *testing.T) {
	nettest.Privileged(t)
	s := newStreet(t, example())
	tunnel, stolen := listen(t, s.node, 51871), listen(t, s.node, 7777)
	for _, hook := range []string{"prerouting", "output"} {
		s.node.Run("nft", fmt.Sprintf(`add table ip tenant; add chain ip tenant %[1]s { type nat hook %[1]s priority -100; };
			add rule ip tenant %[1]s udp dport { 51871, 51872, 9999 } redirect to :7777; add rule ip tenant %[1]s tcp dport 51875 redirect to :7777`, hook))
	}
	send(t, s.peer, 1000, "192.0.2.1:9999", "no port of ours")
	expect(t, stolen, "no port of ours") // the translation works
	send(t, s.peer, 51872, "192.0.2.1:51871", "in")
	expect(t, tunnel, "in")
	there := listen(t, s.peer, 51872)
	send(t, s.node, 51873, "192.0.2.2:51872", "out")
	expect(t, there, "out")

	for name, ends := range map[string][2]*nettest.NS{"in": {s.peer, s.node}, "out": {s.node, s.peer}} {
		to := map[string]string{"in": "192.0.2.1:51875", "out": "192.0.2.2:51875"}[name]
		var l, c net.Conn
		var on net.Listener
		var err error
		ends[1].Do(func() { on, err = net.Listen("tcp4", to) })
		if err != nil {
			t.Fatal(err)
		}
		ends[0].Do(func() { c, err = net.DialTimeout("tcp4", to, 20*time.Second) })
		if err != nil {
			t.Errorf("pairing, %s: %v", name, err)
			on.Close()
			continue
		}
		if l, err = on.Accept(); err != nil {
			t.Error(err)
		} else {
			l.Close()
		}
		c.Close()
		on.Close()
	}
}

// TestPrivilegedPodsStayOffThePorts: a pod of this node, and one of another by a lane, do
// not reach the ports that serve Sealane; others of the node they do.
func TestPrivilegedPodsStayOffThePorts(t *testing.T) {
	nettest.Privileged(t)
	s := newStreet(t, example())
	tunnel, open := listen(t, s.node, 51871), listen(t, s.node, 7777)
	for i, ns := range []*nettest.NS{s.pod, s.lane} {
		before := s.drops(t, nodePort)
		send(t, ns, 1000, "192.0.2.1:51871", "a pod's")
		send(t, ns, 1000, "192.0.2.1:7777", "to another port")
		expect(t, open, "to another port") // what was sent before it has been judged
		if n := s.drops(t, nodePort) - before; n != 1 {
			t.Errorf("client %d: %d datagrams were counted", i, n)
		}
		for _, port := range []string{"51875", "9754", "9755"} {
			for counted := s.drops(t, nodePort); s.drops(t, nodePort) == counted; { // a busy machine may not get to the SYN
				if out, err := ns.Try("timeout", "1", "bash", "-c", "exec 3<>/dev/tcp/192.0.2.1/"+port); err == nil || strings.Contains(out, "refused") {
					t.Fatalf("client %d: port %s answers: %s", i, port, out)
				}
			}
		}
	}
	before := s.drops(t, nodePort)
	changed := example()
	changed.Routes = slices.DeleteFunc(changed.Routes, func(r overlay.Route) bool { return !r.Dst.Addr().Is4() })
	changed.Ports.Readers = prefixes("10.0.0.0/16")
	apply(t, s.host, changed)
	if n := s.drops(t, nodePort); n != before {
		t.Errorf("%d drops after another table, want %d", n, before)
	}
	for i, ns := range []*nettest.NS{s.pod, s.lane} {
		if out, err := ns.Try("timeout", "20", "bash", "-c", "exec 3<>/dev/tcp/192.0.2.1/9754"); err == nil || !strings.Contains(out, "refused") {
			t.Errorf("client %d may read, and is not answered: %v %s", i, err, out)
		}
	}
	send(t, s.peer, 51871, "192.0.2.1:51871", "the peer's")
	expect(t, tunnel, "the peer's") // and none of the pods' before
}

// TestPrivilegedStrays: what comes in the guise of a pod by a device that has no pods is
// dropped, and so is what leaves by one with a pod's address because no connection is known.
func TestPrivilegedStrays(t *testing.T) {
	nettest.Privileged(t)
	s := newStreet(t, example())
	open := listen(t, s.node, 7777)
	s.second.Run("ip", "address", "add", "10.0.2.9/32", "dev", "lo")
	s.second.Run("ip", "route", "add", "192.0.2.1/32", "via", "198.51.100.1")
	before := s.drops(t, leakIngress)
	if out, err := s.second.Try("ping", "-c", "1", "-W", "1", "-I", "10.0.2.9", "192.0.2.1"); err == nil {
		t.Errorf("a pod's address is let in from another device: %s", out)
	}
	if s.drops(t, leakIngress) == before {
		t.Error("it was not counted")
	}
	send(t, s.second, 1000, "192.0.2.1:7777", "its own address")
	expect(t, open, "its own address")

	s.node.Run("sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_loose=0")
	before = s.drops(t, leakEgress)
	segment(t, s.pod, "198.51.100.2")
	if s.drops(t, leakEgress) == before {
		t.Error("a pod's segment without a connection left with the pod's address, uncounted")
	}
}

// segment sends one TCP segment of no connection: ACK to a closed port.
func segment(t *testing.T, ns *nettest.NS, to string) {
	t.Helper()
	var err error
	ns.Do(func() {
		var c net.Conn
		if c, err = net.Dial("ip4:6", to); err != nil {
			return
		}
		defer c.Close()
		_, err = c.Write([]byte{0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestReadersOpenPorts: ranges outside of the cluster open nothing to pods, and VXLAN's
// packets are tracked on their way out.
func TestReadersOpenPorts(t *testing.T) {
	dump := func(p overlay.Plan) string {
		fake := knftables.NewFake(knftables.InetFamily, tableName)
		if err := fake.Run(t.Context(), transaction(fake, p.Masquerade, p.Ports, nil)); err != nil {
			t.Fatal(err)
		}
		return fake.Dump()
	}
	p := example()
	p.Ports.Readers = prefixes("203.0.113.0/24")
	if !strings.Contains(dump(p), "iifgroup 24225 tcp dport { 9754, 9755 } counter name node_port drop") {
		t.Error("a range outside of the cluster opens the ports to pods")
	}
	p.Ports = overlay.Ports{Tunnels: overlay.TunnelPorts(overlay.VXLAN, 0)}
	text := dump(p)
	if strings.Contains(text, "rawout udp") || strings.Contains(text, "rawout ip") || !strings.Contains(text, "fixedout udp dport { 4789 } dnat ip to ip daddr map @there4") {
		t.Errorf("VXLAN:\n%s", text)
	}
}
