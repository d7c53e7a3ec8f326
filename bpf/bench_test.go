// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/sealane/sealane/policy"
)

// perPacket reports what a packet that is run again and again costs.
func perPacket(b *testing.B, d *Datapath, p testPacket) {
	b.Helper()
	_, took, err := d.programs[podProgPodEgress].Benchmark(p.bytes(), b.N, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(took.Nanoseconds()), "ns/packet")
}

func between(src, dst string) testPacket {
	return testPacket{src: netip.MustParseAddr(src), dst: netip.MustParseAddr(dst), proto: protoUDP, sport: 7, dport: 8, ttl: 255}
}

func BenchmarkPrivilegedPodEgress(b *testing.B) {
	d := load(b)
	world(b, d)
	for _, f := range families {
		offer(b, d, port(f.service(1), 8), eight(f)...)
	}
	for _, tc := range []struct{ name, src, dst string }{
		{"local-v4", "10.1.1.2", "10.1.1.3"}, {"local-v6", "fd00:1:1::2", "fd00:1:1::3"},
		{"lane-v4", "10.1.1.2", "10.1.2.2"}, {"lane-v6", "fd00:1:1::2", "fd00:1:2::2"},
		{"service-v4", "10.1.1.2", "10.96.0.1"}, {"service-v6", "fd00:1:1::2", "fd00:96::1"},
	} {
		b.Run(tc.name, func(b *testing.B) { perPacket(b, d, between(tc.src, tc.dst)) })
	}
}

// BenchmarkPrivilegedPolicy has one pod speak to another that many rules keep.
// Denied packets are judged each time, which is what the first packet of a flow costs.
func BenchmarkPrivilegedPolicy(b *testing.B) {
	for _, rules := range []int{0, 100, 10000} {
		d := load(b)
		o := world(b, d)
		tables := policy.Tables{
			Guards: o.open(), Identities: map[netip.Addr]policy.ID{}, Blocks: map[netip.Prefix]policy.ID{},
			Sets: map[policy.ID]policy.Set{}, Rules: map[policy.Rule]policy.ID{},
			Ports: map[policy.ID][]policy.Ports{21: {{Protocol: protoUDP, First: 8, Last: 8}}},
		}
		open, shut := netip.MustParseAddr("10.1.1.2"), netip.MustParseAddr("10.1.1.3")
		tables.Identities[open], tables.Identities[shut] = 1<<20, 1<<20+1
		if rules > 0 {
			tables.Sets[11] = policy.Set{}
			for i := range policy.ID(rules) {
				tables.Rules[policy.Rule{Set: 11, Peer: 100 + i}] = 21
				tables.Blocks[netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}), 32)] = 100 + i
			}
			tables.Rules[policy.Rule{Set: 11, Peer: tables.Identities[shut]}] = 21
			tables.Guards[open] = policy.Guard{Egress: 11, TrialEgress: 11}
		}
		if err := d.SyncPolicy(tables); err != nil {
			b.Fatal(err)
		}
		p := between(open.String(), shut.String())
		b.Run(fmt.Sprintf("established-%d-rules", rules), func(b *testing.B) { perPacket(b, d, p) })
		if rules > 0 {
			p.dport = 9
			b.Run(fmt.Sprintf("denied-%d-rules", rules), func(b *testing.B) { perPacket(b, d, p) })
			p.dport = 8
		}
		// A new flow for each: what is on top of that is the cost of the test's run.
		b.Run(fmt.Sprintf("new-%d-rules", rules), func(b *testing.B) {
			p := p
			var all [1 << 12][]byte
			for i := range all {
				p.sport = uint16(i)
				all[i] = p.bytes()
			}
			for i := range b.N {
				if i%len(all) == 0 {
					b.StopTimer()
					if err := d.changeState(func(s *podPolicyState) { s.Generation++ }); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
				if _, err := d.programs[podProgPodEgress].Run(&ebpf.RunOptions{Data: all[i%len(all)], Context: skb{Ifindex: loopback}}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
