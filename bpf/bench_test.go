// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/policy"
)

// perPacket reports what pod_egress takes for a packet, by the kernel's own clock.
// The kernel runs it again and again on the packet as the last run has left it:
// often, as long as TTL lasts, or once where it is not the same packet any more.
func perPacket(b *testing.B, d *Datapath, often uint32, next func() []byte) {
	b.Helper()
	clock, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		b.Fatal(err)
	}
	defer clock.Close()
	prog := d.programs[podProgPodEgress]
	before, err := prog.Stats()
	if err != nil {
		b.Fatal(err)
	}
	for range max(b.N/int(often), 1) {
		if _, err := prog.Run(&ebpf.RunOptions{Data: next(), Repeat: often, Context: skb{Ifindex: loopback}}); err != nil {
			b.Fatal(err)
		}
	}
	after, err := prog.Stats()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(after.Runtime-before.Runtime)/float64(after.RunCount-before.RunCount), "ns/packet")
}

func between(src, dst string) testPacket {
	return testPacket{src: netip.MustParseAddr(src), dst: netip.MustParseAddr(dst), proto: protoUDP, sport: 7, dport: 8, ttl: 255}
}

// same gives one packet always, fresh gives one of a new flow each time.
func same(p testPacket) func() []byte {
	data := p.bytes()
	return func() []byte { return data }
}

func fresh(b *testing.B, d *Datapath, p testPacket) func() []byte {
	b.Helper()
	return func() []byte {
		if p.sport++; p.sport == 0 { // what is known of the flows is out of date
			if err := d.changeState(func(s *podPolicyState) { s.Generation++ }); err != nil {
				b.Fatal(err)
			}
		}
		return p.bytes()
	}
}

const hops = 200 // of 255

func BenchmarkPrivilegedPodEgress(b *testing.B) {
	d := load(b)
	world(b, d)
	for _, f := range families {
		offer(b, d, port(f.service(1), 8), eight(f)...)
	}
	for _, tc := range []struct{ name, src, dst string }{
		{"local-v4", "10.1.1.2", "10.1.1.3"},
		{"local-v6", "fd00:1:1::2", "fd00:1:1::3"},
		{"lane-v4", "10.1.1.2", "10.1.2.2"},
		{"lane-v6", "fd00:1:1::2", "fd00:1:2::2"},
		{"outside-v4", "10.1.1.2", "192.0.2.1"},
	} {
		b.Run(tc.name, func(b *testing.B) { perPacket(b, d, hops, same(between(tc.src, tc.dst))) })
	}
	for _, tc := range []struct{ name, src, dst string }{
		{"lane-v4", "10.1.1.2", "10.1.2.2"}, {"service-v4", "10.1.1.2", "10.96.0.1"}, {"service-v6", "fd00:1:1::2", "fd00:96::1"},
	} {
		b.Run("cold-"+tc.name, func(b *testing.B) { perPacket(b, d, 1, same(between(tc.src, tc.dst))) })
		b.Run("new-"+tc.name, func(b *testing.B) { perPacket(b, d, 1, fresh(b, d, between(tc.src, tc.dst))) })
	}
}

// BenchmarkPrivilegedPolicy has one pod speak to another that many rules keep.
func BenchmarkPrivilegedPolicy(b *testing.B) {
	for _, rules := range []int{0, 100, 10000} {
		d := load(b)
		o := world(b, d)
		tables := policy.Tables{
			Endpoints: o.open(), Identities: map[netip.Addr]policy.PeerID{}, Blocks: map[netip.Prefix]policy.PeerID{},
			Sets: map[policy.SetID]policy.Set{}, Rules: map[policy.Rule]policy.PortsID{},
			Ports: map[policy.PortsID][]policy.Ports{21: {{Protocol: protoUDP, First: 8, Last: 8}}},
		}
		from, to := netip.MustParseAddr("10.1.1.2"), netip.MustParseAddr("10.1.1.3")
		tables.Identities[from], tables.Identities[to] = 1<<20, 1<<20+1
		if rules > 0 {
			tables.Sets[11] = policy.Set{}
			for i := range policy.PeerID(rules) {
				tables.Rules[policy.Rule{Set: 11, Peer: 100 + i}] = 21
				tables.Blocks[netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}), 32)] = 100 + i
			}
			tables.Rules[policy.Rule{Set: 11, Peer: tables.Identities[to]}] = 21
			tables.Endpoints[from] = policy.EndpointPolicy{Egress: 11, DryRunEgress: 11}
		}
		if err := d.SyncPolicy(tables); err != nil {
			b.Fatal(err)
		}
		p := between(from.String(), to.String())
		b.Run(fmt.Sprintf("established-%d-rules", rules), func(b *testing.B) { perPacket(b, d, hops, same(p)) })
		b.Run(fmt.Sprintf("new-%d-rules", rules), func(b *testing.B) { perPacket(b, d, 1, fresh(b, d, p)) })
		p.dport = 9
		b.Run(fmt.Sprintf("new-denied-%d-rules", rules), func(b *testing.B) { perPacket(b, d, 1, fresh(b, d, p)) })
	}
}
