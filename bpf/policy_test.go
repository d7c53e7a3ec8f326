// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sealane/sealane/bpf/words"
	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/policy"
)

// TestPortKeysCoverTheRange looks up every port as the programs do, by the
// longest prefix; any will do, as all mean the same.
func TestPortKeysCoverTheRange(t *testing.T) {
	ranges := []policy.Ports{
		{Protocol: 6, First: 0, Last: 65535},
		{Protocol: 6, First: 1, Last: 65535},
		{Protocol: 17, First: 0, Last: 65534},
		{Protocol: 6, First: 1, Last: 65534},
		{Protocol: 6, First: 0, Last: 0},
		{Protocol: 6, First: 65535, Last: 65535},
		{Protocol: 132, First: 80, Last: 80},
		{Protocol: 6, First: 32767, Last: 32768},
		{Protocol: 6, First: 1024, Last: 49151},
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		a, b := uint16(r.Uint32()), uint16(r.Uint32())
		ranges = append(ranges, policy.Ports{Protocol: 6, First: min(a, b), Last: max(a, b)})
	}
	const id = policy.PortsID(0x0123456789abcdef)
	for _, want := range ranges {
		keys := portKeys(id, want)
		if len(keys) == 0 || len(keys) > 30 {
			t.Errorf("%+v: %d prefixes", want, len(keys))
		}
		times := make([]int, 1<<16)
		for _, k := range keys {
			if portSetOf(k) != id || k.Proto != want.Protocol {
				t.Fatalf("%+v: prefix of another set or protocol: %+v", want, k)
			}
			first, free := int(binary.BigEndian.Uint16(k.Port[:])), int(portBits+16-k.Len)
			if first&(1<<free-1) != 0 {
				t.Fatalf("%+v: prefix with bits behind its length: %+v", want, k)
			}
			for p := first; p < first+1<<free; p++ {
				times[p]++
			}
		}
		for p, n := range times {
			if in := p >= int(want.First) && p <= int(want.Last); in != (n == 1) || n > 1 {
				t.Fatalf("%+v: port %d is in %d prefixes", want, p, n)
			}
		}
		if diff := cmp.Diff([]policy.Ports{want}, portsOf(keys)); diff != "" {
			t.Errorf("read back (-want +got):\n%s", diff)
		}
	}
}

// sameTables compares them; an absent table is an empty one.
func sameTables(t *testing.T, d *Datapath, want policy.Tables) {
	t.Helper()
	got, err := d.PolicyTables()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, sameAddrs, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("tables in the kernel (-want +got):\n%s", diff)
	}
}

// scattered adds sets of many ranges to the tables: sorted, and not touching.
func scattered(r *rand.Rand, t policy.Tables) policy.Tables {
	for id := policy.PortsID(1 << 60); id < 1<<60+3; id++ {
		for _, protocol := range []uint8{protoTCP, protoUDP, protoSCTP} {
			for at := r.IntN(20000); at < 65536; at += 2 + r.IntN(20000) {
				last := min(at+r.IntN(10000), 65535)
				t.Ports[id] = append(t.Ports[id], policy.Ports{Protocol: protocol, First: uint16(at), Last: uint16(last)})
				at = last
			}
		}
		if len(t.Ports[id]) == 0 {
			delete(t.Ports, id)
		}
	}
	return t
}

func TestPrivilegedPolicyIsReadBack(t *testing.T) {
	pins := nettest.BPFFS(t)
	d := loadAt(t, pins)
	o := world(t, d)
	seed := uint64(os.Getpid())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	have, steps := policy.Tables{Endpoints: o.open()}, 60
	if testing.Short() {
		steps = 12
	}
	for step := range steps {
		want := scattered(r, randomTables(r, o))
		if step%10 == 9 {
			want = policy.Tables{}
		}
		var err error
		if step%6 == 5 { // by a daemon that starts anew
			d = loadAt(t, pins)
			sameTables(t, d, have)
		}
		if step%2 == 0 {
			err = d.ApplyPolicy(policy.Difference(have, want))
		} else {
			err = d.SyncPolicy(want)
		}
		if err != nil {
			t.Fatal(err)
		}
		sameTables(t, d, want)
		have = want
	}
}

// TestPrivilegedFullTables leaves room for a few entries only. What is missing is
// an error, and lets nothing through that the tables do not allow.
func TestPrivilegedFullTables(t *testing.T) {
	number := func(i uint64) (b [16]byte) {
		b[0], b[1] = 0xfd, 0x99
		binary.BigEndian.PutUint64(b[8:], i)
		return b
	}
	words := func(i uint64) [4]uint32 { return words.Of(netip.AddrFrom16(number(i))) }
	for _, tc := range []struct {
		name string
		of   func(*Datapath) *ebpf.Map
		key  func(i uint64) any
	}{
		{"identities", func(d *Datapath) *ebpf.Map { return d.maps.SlIdentities }, func(i uint64) any { return words(i) }},
		{"blocks", func(d *Datapath) *ebpf.Map { return d.maps.SlBlocks }, func(i uint64) any {
			return encodePrefix(netip.PrefixFrom(netip.AddrFrom16(number(i)), 128))
		}},
		{"sets", func(d *Datapath) *ebpf.Map { return d.maps.SlRuleSets }, func(i uint64) any { return i + 1<<40 }},
		{"ports", func(d *Datapath) *ebpf.Map { return d.maps.SlPorts }, func(i uint64) any {
			return portKeys(policy.PortsID(i+1<<40), policy.Ports{Protocol: 6, First: 80, Last: 80})[0]
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := load(t)
			o := world(t, d)
			m := tc.of(d)
			if testing.Short() && m.MaxEntries() > 1<<17 {
				return // filling it takes an emulated machine minutes
			}
			value := make([]byte, m.ValueSize())
			value[0] = 99
			filled := uint64(0)
			for ; ; filled++ {
				if err := m.Put(tc.key(filled), value); err != nil {
					break
				}
			}
			if filled < uint64(m.MaxEntries())-100 {
				t.Fatalf("only %d of %d entries could be written", filled, m.MaxEntries())
			}
			r := rand.New(rand.NewPCG(uint64(os.Getpid()), 2))
			fresh := uint16(0)
			for round := range 10 {
				free := r.IntN(8)
				for i := range free {
					if err := m.Delete(tc.key(uint64(i))); err != nil {
						t.Fatal(err)
					}
				}
				tables := scattered(r, randomTables(r, o))
				for id := range tables.Rules {
					if r.IntN(2) == 0 {
						tables.Rules[id] = policy.AllPorts // what is missing matters
					}
				}
				err := d.ApplyPolicy(policy.Changes{Set: tables})
				if err != nil && !errors.Is(err, ErrFull) || err == nil && tc.name == "ports" {
					t.Fatalf("round %d: %v, want %v", round, err, ErrFull)
				}
				passed := o.passOnlyWhatIsAllowed(t, d, r, tables, &fresh)
				if passed == 0 {
					t.Logf("round %d: nothing passes", round)
				}
				if err := d.ApplyPolicy(policy.Difference(tables, policy.Tables{Endpoints: o.open()})); err != nil && !errors.Is(err, ErrFull) {
					t.Fatal(err)
				}
				for i := range free {
					if err := m.Put(tc.key(uint64(i)), value); err != nil {
						t.Fatal(err)
					}
				}
			}
			for i := range filled { // there is room again
				if err := m.Delete(tc.key(i)); err != nil {
					t.Fatal(err)
				}
			}
			tables := scattered(r, randomTables(r, o))
			if err := d.SyncPolicy(tables); err != nil {
				t.Fatal(err)
			}
			sameTables(t, d, tables)
		})
	}
}

// passOnlyWhatIsAllowed sends the first packets of many flows.
func (o *oracle) passOnlyWhatIsAllowed(t *testing.T, d *Datapath, r *rand.Rand, tables policy.Tables, fresh *uint16) int {
	t.Helper()
	all, passed := everyAddress(), 0
	for range 300 {
		p := testPacket{src: pick(r, addrs("10.1.1.2", "10.1.1.3", "fd00:1:1::2", "fd00:1:1::3")), proto: protoUDP, dport: uint16(r.IntN(5)), ttl: 64}
		for p.dst = pick(r, all); p.dst.Is4() != p.src.Is4() || p.dst.IsMulticast() || p.dst.Is4() && p.dst.As4()[0] == 255; {
			p.dst = pick(r, all)
		}
		*fresh++
		p.sport = *fresh
		_, here := o.endpoints[p.dst]
		v := tables.Verdict(policy.Traffic{From: p.src, To: p.dst, Protocol: p.proto, Port: p.dport}, addrs("172.30.0.1", "fd00:30::1")...)
		allowed := v.Egress && (!here || v.Ingress)
		if action := d.answer(t, podProgPodEgress, p); action != actShot {
			passed++
			if !allowed {
				t.Fatalf("%+v passed; the tables do not allow it", p)
			}
		}
	}
	return passed
}

// answer runs a program on a packet and counts nothing.
func (d *Datapath) answer(t testing.TB, program string, p testPacket) uint32 {
	t.Helper()
	action, err := d.programs[program].Run(&ebpf.RunOptions{Data: p.bytes(), Context: skb{Ifindex: loopback}})
	if err != nil {
		t.Fatalf("run %s on %+v: %v", program, p, err)
	}
	return action
}
