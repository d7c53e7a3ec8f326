// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/policy"
)

// leaves gives what becomes of a frame that came from a pod's device.
func leaves(t testing.TB, d *Datapath, frame []byte, device uint32) (action uint32, reason Reason) {
	t.Helper()
	drops := counted(t, d, func() {
		var err error
		if action, err = d.programs[podProgPodEgress].Run(&ebpf.RunOptions{Data: frame, Context: skb{Ifindex: device}}); err != nil {
			t.Fatal(err)
		}
	})
	for r, n := range drops.Drops {
		if n.Packets > 0 {
			return action, r
		}
	}
	return action, 0
}

// outside is an address that is nobody's whom the programs know.
func (f family) outside() netip.Addr {
	if f.podAddr(1, 2).Is4() {
		return netip.MustParseAddr("192.0.2.1")
	}
	return netip.MustParseAddr("2001:db8::1")
}

// TestPrivilegedHiddenSYN: a pod whose egress is closed begins no connection, however
// it cuts its first segment, and whatever stands in the frame behind the packet.
func TestPrivilegedHiddenSYN(t *testing.T) {
	d := load(t)
	mayBeginNothing(t, d, world(t, d))
	each(t, func(t *testing.T, _ int, f family) {
		syn := testPacket{src: f.podAddr(1, 2), dst: f.outside(), proto: protoTCP, sport: 4321, dport: 7, flags: flagSYN, ttl: 64}
		for name, tc := range map[string]struct {
			change func(*testPacket)
			want   Reason
		}{
			"whole":                  {func(*testPacket) {}, ReasonPolicyEgress},
			"padded":                 {func(p *testPacket) { p.padding = true }, ReasonPolicyEgress},
			"tiny":                   {func(p *testPacket) { p.tiny, p.padding = true, true }, ReasonMalformed},
			"first fragment":         {func(p *testPacket) { p.fragment = 1 }, ReasonPolicyEgress},
			"tiny first fragment":    {func(p *testPacket) { p.fragment, p.tiny, p.padding = 1, true, true }, ReasonMalformed},
			"from the 8th byte on":   {func(p *testPacket) { p.fragment = 3 }, ReasonMalformed},
			"extensions before tiny": {func(p *testPacket) { p.fragment, p.tiny, p.padding, p.extensions = 1, true, true, 2 }, ReasonMalformed},
		} {
			p := syn
			tc.change(&p)
			if action, reason := leaves(t, d, p.bytes(), loopback); action != actShot || reason != tc.want {
				t.Errorf("%s: action %d, reason %s; want it dropped as %s", name, action, reason, tc.want)
			}
		}
	})
}

// trimmed cuts off what stands in a frame behind its packet, as the receiver does.
func trimmed(frame []byte) []byte {
	end := len(frame)
	switch {
	case binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IP && len(frame) >= 34:
		end = 14 + int(binary.BigEndian.Uint16(frame[16:]))
	case binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IPV6 && len(frame) >= 54:
		end = 54 + int(binary.BigEndian.Uint16(frame[18:]))
	}
	if end < 34 || end > len(frame) { // the kernel runs no program on less
		return frame
	}
	return frame[:end]
}

// TestPrivilegedPaddingDecidesNothing meets two nodes with the same frames, one of them
// without padding, and many of them wrong in some byte of their headers.
func TestPrivilegedPaddingDecidesNothing(t *testing.T) {
	nodes := [2]*Datapath{load(t), load(t)}
	var worlds [2]*oracle
	for i, d := range nodes {
		worlds[i] = world(t, d)
	}
	seed := uint64(os.Getpid())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 7))
	all, actions := everyAddress(), map[uint32]int{}
	for step := range 5000 {
		if step%100 == 0 {
			tables := randomTables(r, worlds[0])
			for i, d := range nodes {
				worlds[i].change(t, d, tables)
			}
		}
		p := randomPacket(r, all, all)
		p.padding = false
		frame := p.bytes()
		for range r.IntN(3) {
			frame[14+r.IntN(len(frame)-14)] = byte(r.Uint32())
		}
		for range r.IntN(40) {
			frame = append(frame, byte(r.Uint32()))
		}
		program := pick(r, []string{"pod_egress", "pod_ingress", "lane_ingress_l2", "lane_egress_l2"})
		var got [2]uint32
		for i, data := range [2][]byte{frame, trimmed(frame)} {
			var err error
			if got[i], err = nodes[i].programs[program].Run(&ebpf.RunOptions{Data: data, Context: skb{Ifindex: loopback}}); err != nil {
				t.Fatal(err)
			}
		}
		if got[0] != got[1] {
			t.Fatalf("step %d, %s: %d, and %d without padding: %x, trimmed to %d bytes", step, program, got[0], got[1], frame, len(trimmed(frame)))
		}
		actions[got[0]]++
	}
	if actions[actShot] == 0 || actions[actOK] == 0 || actions[actRedirect] == 0 {
		t.Errorf("not all actions were met: %v", actions)
	}
}

// TestPrivilegedSpoofedFragmentHasNoSay: a fragment that is dropped for its source, or by
// policy, does not decide what becomes of the source's own fragments.
func TestPrivilegedSpoofedFragmentHasNoSay(t *testing.T) {
	d := load(t)
	o := world(t, d)
	tables := policy.Tables{
		Endpoints: o.open(),
		Sets:      map[policy.SetID]policy.Set{11: {Any: 21}},
		Ports:     map[policy.PortsID][]policy.Ports{21: {{Protocol: protoUDP, First: 53, Last: 53}}},
	}
	for a := range tables.Endpoints {
		tables.Endpoints[a] = policy.EndpointPolicy{Egress: 11, DryRunEgress: 11}
	}
	o.change(t, d, tables)
	each(t, func(t *testing.T, _ int, f family) {
		first := testPacket{src: f.podAddr(1, 2), dst: f.outside(), proto: protoUDP, sport: 1000, dport: 53, ttl: 64, fragment: 1}
		later, other := first, first
		later.fragment, other.dport = 2, 9999
		want := func(what string, p testPacket, device uint32, want Reason) {
			t.Helper()
			if _, reason := leaves(t, d, p.bytes(), device); reason != want {
				t.Errorf("%s: dropped for %q, want %q", what, reason, want)
			}
		}
		want("first", first, loopback, 0)
		want("later", later, loopback, 0)
		want("first of another pod with this source", other, loopback+1, ReasonSpoofedSource)
		want("later, after a spoofed first", later, loopback, 0)
		want("first to a port that is denied", other, loopback, ReasonPolicyEgress)
		want("later, after a first that is denied", later, loopback, 0)
	})
}

// TestPrivilegedNodePorts: pods have nothing to say to the ports by which nodes speak to
// each other, at whatever address, also by a service.
func TestPrivilegedNodePorts(t *testing.T) {
	d := loadWith(t, Options{PinPath: nettest.BPFFS(t), NodePorts: []policy.Ports{
		{Protocol: protoUDP, First: 51871, Last: 51874}, {Protocol: protoTCP, First: 51875, Last: 51875},
	}})
	world(t, d)
	each(t, func(t *testing.T, _ int, f family) {
		to := func(a netip.Addr, proto uint8, dport uint16) testPacket {
			return testPacket{src: f.podAddr(1, 2), dst: a, proto: proto, sport: 1000, dport: dport, flags: flagSYN, ttl: 64}
		}
		lane, pairing := port(f.service(5), 80), port(f.service(6), 80)
		offer(t, d, lane, port(f.nodeAddr(2), 51872))
		offer(t, d, pairing, port(f.nodeAddr(1), 51875))
		for _, tc := range []struct {
			what string
			p    testPacket
			want Reason
		}{
			{"own node, first lane", to(f.nodeAddr(1), protoUDP, 51871), ReasonNodePort},
			{"other node, last lane", to(f.nodeAddr(2), protoUDP, 51874), ReasonNodePort},
			{"other node, preshared keys", to(f.nodeAddr(2), protoTCP, 51875), ReasonNodePort},
			{"an address that is not known as a node's", to(f.outside(), protoUDP, 51871), ReasonNodePort},
			{"by a service", to(lane.Addr(), protoUDP, 80), ReasonNodePort},
			{"own node by a service", to(pairing.Addr(), protoTCP, 80), ReasonNodePort},
			{"another port", to(f.nodeAddr(2), protoUDP, 51875), 0},
			{"another protocol", to(f.nodeAddr(2), protoTCP, 51871), 0},
			{"port before", to(f.nodeAddr(1), protoUDP, 51870), 0},
			{"a pod", to(f.podAddr(2, 2), protoUDP, 51871), 0},
		} {
			if _, reason := leaves(t, d, tc.p.bytes(), loopback); reason != tc.want {
				t.Errorf("%s: dropped for %q, want %q", tc.what, reason, tc.want)
			}
		}
	})
	if _, err := Load(Options{PinPath: nettest.BPFFS(t), NodePorts: make([]policy.Ports, maxNodePorts+1)}); err == nil {
		t.Error("more ranges than there is room for were taken")
	}
}

// TestPrivilegedNothingButIP: what a pod sends that is not IP, or for a VLAN, is not the
// host's: its ARP would fill the host's table of neighbours.
func TestPrivilegedNothingButIP(t *testing.T) {
	n := newNode(t, 1)
	p := n.pod(2)
	link, err := p.Handle().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	whole := testPacket{src: p.addrs[0], dst: families[0].nodeAddr(1), proto: protoUDP, sport: 7, dport: 8, ttl: 64}.bytes()
	copy(whole, hostMAC)
	copy(whole[6:], p.mac)
	tagged := append(append([]byte{}, whole[:12]...), 0x81, 0, 0x60, 0) // priority 3, VLAN 0
	tagged = append(tagged, whole[12:]...)
	arp := append(append([]byte{}, whole[:12]...), 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	arp = append(arp, p.mac...)
	sender, asked := netip.MustParseAddr("203.0.113.9").AsSlice(), families[0].nodeAddr(1).AsSlice()
	arp = append(append(append(arp, sender...), make([]byte, 6)...), asked...)
	for name, frame := range map[string][]byte{"VLAN": tagged, "ARP": arp} {
		before, err := n.d.Counters()
		if err != nil {
			t.Fatal(err)
		}
		in(t, p.NS, func() error { return sendFrame(link.Index, frame) })
		deadline := time.Now().Add(patience)
		for {
			now, err := n.d.Counters()
			if err != nil {
				t.Fatal(err)
			}
			if now.Drops[ReasonProtocol].Packets > before.Drops[ReasonProtocol].Packets {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: was not dropped for its protocol: %v", name, now.Drops)
			}
			time.Sleep(time.Millisecond)
		}
	}
	if out := n.Run("ip", "neigh", "show", "dev", "slp2"); strings.Contains(out, "203.0.113.9") {
		t.Errorf("the host's table of neighbours has\n%s", out)
	}
	each(t, func(t *testing.T, i int, f family) {
		to := netip.MustParseAddr("127.0.0.1")
		if f.nodeAddr(1).Is6() {
			to = netip.IPv6Loopback()
		}
		q := testPacket{src: p.addrs[i], dst: to, proto: protoUDP, sport: 7, dport: 8, ttl: 64}
		if _, reason := leaves(t, n.d, q.bytes(), uint32(p.host.Index)); reason != ReasonLoopback {
			t.Errorf("a packet to %s: dropped for %q", to, reason)
		}
		q.dst = f.nodeAddr(1)
		if _, reason := leaves(t, n.d, q.bytes(), uint32(p.host.Index)); reason != 0 {
			t.Errorf("a packet to the node: dropped for %q", reason)
		}
	})
}

func sendFrame(device int, frame []byte) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: device})
}

// TestPrivilegedClosedInOneDirection: what is closed to begin with is closed in the middle
// of a connection, too, and to errors about what nobody has sent.
func TestPrivilegedClosedInOneDirection(t *testing.T) {
	d := load(t)
	mayBeginNothing(t, d, world(t, d))
	each(t, func(t *testing.T, _ int, f family) {
		self := f.podAddr(1, 2)
		for _, to := range []netip.Addr{f.podAddr(2, 2), f.podAddr(1, 3), f.nodeAddr(2), f.outside()} {
			p := testPacket{src: self, dst: to, proto: protoTCP, sport: 4321, dport: 7, ttl: 64}
			for name, flags := range map[string]uint8{"ACK": flagACK, "FIN": flagACK | 1, "RST": 4, "SYN+ACK": flagSYN | flagACK, "none": 0} {
				p.flags = flags
				if action, reason := leaves(t, d, p.bytes(), loopback); action != actShot || reason != ReasonPolicyEgress {
					t.Errorf("%s to %s: action %d, reason %s", name, to, action, reason)
				}
			}
			p.proto = protoICMP
			if self.Is6() {
				p.proto = proto6
			}
			for _, proto := range []uint8{protoUDP, protoTCP} {
				p.quoted = &testPacket{src: to, dst: self, proto: proto, sport: 9, dport: 10, ttl: 9}
				if action, reason := leaves(t, d, p.bytes(), loopback); action != actShot || reason != ReasonPolicyEgress {
					t.Errorf("error about an invented packet of protocol %d of %s: action %d, reason %s", proto, to, action, reason)
				}
			}
		}
	})
}

// mayBeginNothing gives the pods of a world policies by which they may begin nothing, and anybody
// may begin with them.
func mayBeginNothing(t *testing.T, d *Datapath, o *oracle) {
	t.Helper()
	tables := policy.Tables{
		Endpoints: o.open(), Sets: map[policy.SetID]policy.Set{policy.Closed: {}}, Identities: map[netip.Addr]policy.PeerID{},
	}
	for a := range tables.Endpoints {
		tables.Endpoints[a] = policy.EndpointPolicy{Egress: policy.Closed, DryRunEgress: policy.Closed}
	}
	for _, a := range everyAddress() {
		if k := o.find(a).Kind; k == overlay.PodLocal || k == overlay.PodRemote {
			tables.Identities[a] = 31
		}
	}
	o.change(t, d, tables)
}

// TestPrivilegedConnectionOutlivesItsEntry: a server that may begin nothing goes on
// answering when other pods have filled the map of flows; and when they have filled
// both, as soon as its client says a word.
func TestPrivilegedConnectionOutlivesItsEntry(t *testing.T) {
	d := load(t)
	mayBeginNothing(t, d, world(t, d))
	each(t, func(t *testing.T, _ int, f family) {
		for _, client := range []netip.Addr{f.podAddr(2, 2), f.nodeAddr(2)} {
			syn := testPacket{src: client, dst: f.podAddr(1, 2), proto: protoTCP, sport: 4321, dport: 7, flags: flagSYN, ttl: 64}
			word, answer := syn, testPacket{src: syn.dst, dst: syn.src, proto: protoTCP, sport: 7, dport: 4321, flags: flagACK, ttl: 64}
			word.flags = flagACK
			arrives := func(p testPacket) {
				t.Helper()
				if d.answer(t, "lane_ingress_l2", p) == actShot {
					t.Errorf("%+v was dropped", p)
				}
			}
			want := func(what string, want Reason) {
				t.Helper()
				if _, reason := leaves(t, d, answer.bytes(), loopback); reason != want {
					t.Errorf("%s to %s: dropped for %q, want %q", what, client, reason, want)
				}
			}
			want("before anything was asked", ReasonPolicyEgress)
			arrives(syn)
			want("answer", 0)
			forget[podFlow, podFlowState](t, d.maps.SlFlows)
			want("answer without its entry", 0)
			forget[podFlow, podFlowState](t, d.maps.SlFlows)
			forget[podFlow, uint32](t, d.maps.SlOrigins)
			want("answer that nobody remembers", ReasonPolicyEgress)
			arrives(word)
			want("answer to a client that goes on", 0)
			forget[podFlow, podFlowState](t, d.maps.SlFlows)
			want("answer without its entry, again", 0)
			forget[podFlow, podFlowState](t, d.maps.SlFlows)
			forget[podFlow, uint32](t, d.maps.SlOrigins)
		}
	})
}

// TestPrivilegedLeniency: where Sealane comes to a node, connections are under way of which
// it has seen no beginning.
func TestPrivilegedLeniency(t *testing.T) {
	pins := filepath.Join(nettest.BPFFS(t), "sealane")
	d := loadWith(t, Options{PinPath: pins, Leniency: time.Hour})
	mayBeginNothing(t, d, world(t, d))
	f := families[0]
	answer := testPacket{src: f.podAddr(1, 2), dst: f.podAddr(2, 2), proto: protoTCP, sport: 7, dport: 4321, flags: flagACK, ttl: 64}
	if _, reason := leaves(t, d, answer.bytes(), loopback); reason != 0 {
		t.Errorf("at first: dropped for %s", reason)
	}
	answer.flags = flagSYN
	if _, reason := leaves(t, d, answer.bytes(), loopback); reason != ReasonPolicyEgress {
		t.Errorf("a SYN: dropped for %q", reason)
	}
	answer.flags = flagACK
	again := loadWith(t, Options{PinPath: pins, Leniency: time.Hour})
	if _, reason := leaves(t, again, answer.bytes(), loopback); reason != ReasonPolicyEgress {
		t.Errorf("with the flows of an earlier daemon: dropped for %q", reason)
	}
}
