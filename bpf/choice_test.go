// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sealane/sealane/bpf/words"
	"github.com/sealane/sealane/overlay/service"
)

// goesTo is where a pod's packet goes when it leaves the program.
func goesTo(t testing.TB, d *Datapath, p testPacket) netip.AddrPort {
	t.Helper()
	data := p.bytes()
	o := ebpf.RunOptions{Data: data, DataOut: make([]byte, len(data)+64), Context: skb{Ifindex: loopback}}
	action, err := d.programs[podProgPodEgress].Run(&o)
	if err != nil || action == actShot {
		t.Fatalf("%+v: action %d (%v)", p, action, err)
	}
	b := o.DataOut[14:]
	if p.src.Is4() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:])), binary.BigEndian.Uint16(b[22:]))
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[24:])), binary.BigEndian.Uint16(b[42:]))
}

// eight gives backends on the peer, in order.
func eight(f family) []netip.AddrPort {
	var all []netip.AddrPort
	for i := range 8 {
		all = append(all, port(f.podAddr(2, 10+i), 8080))
	}
	return all
}

// request is the first packet of a pod to a service.
func request(f family, proto uint8, from uint16, to netip.AddrPort) testPacket {
	return testPacket{src: f.podAddr(1, 2), dst: to.Addr(), proto: proto, sport: from, dport: to.Port(), flags: flagSYN, ttl: 64}
}

func without(all []netip.AddrPort, gone netip.AddrPort) []netip.AddrPort {
	var left []netip.AddrPort
	for _, b := range all {
		if b != gone {
			left = append(left, b)
		}
	}
	return left
}

func TestPrivilegedBackendIsKept(t *testing.T) {
	d := load(t)
	world(t, d)
	each(t, func(t *testing.T, _ int, f family) {
		at, backends := port(f.service(1), 80), eight(f)
		offer(t, d, at, backends...)
		chosen := map[netip.AddrPort]int{}
		for from := range uint16(400) {
			for _, proto := range []uint8{protoTCP, protoUDP} {
				p := request(f, proto, 1000+from, at)
				first := goesTo(t, d, p)
				chosen[first]++
				for range 3 { // the same SYN again
					if again := goesTo(t, d, p); again != first {
						t.Fatalf("%+v went to %s and then to %s", p, first, again)
					}
				}
				p.flags = flagACK
				if then := goesTo(t, d, p); then != first {
					t.Fatalf("%+v went to %s, the first packet to %s", p, then, first)
				}
			}
		}
		for _, b := range backends {
			if n := chosen[b]; n < 50 || n > 160 { // of 800: 100 are to be expected
				t.Errorf("%s was chosen %d times of 800", b, n)
			}
		}
		// One goes: who has it and speaks UDP gets another; all others keep theirs.
		before := map[testPacket]netip.AddrPort{}
		for from := range uint16(100) {
			for _, proto := range []uint8{protoTCP, protoUDP} {
				p := request(f, proto, 1000+from, at)
				p.flags = flagACK
				before[p] = goesTo(t, d, p)
			}
		}
		gone := backends[3]
		offer(t, d, at, without(backends, gone)...)
		for p, was := range before {
			is := goesTo(t, d, p)
			if moved := is != was; moved != (was == gone && p.proto == protoUDP) {
				t.Errorf("%+v went to %s and goes to %s, and %s is gone", p, was, is, gone)
			}
			p.flags = flagSYN // the port is used again
			if again := goesTo(t, d, p); again == gone {
				t.Errorf("%+v goes to %s, which is gone", p, gone)
			}
		}
	})
}

func TestPrivilegedAffinity(t *testing.T) {
	d := load(t)
	world(t, d)
	each(t, func(t *testing.T, _ int, f family) {
		at, backends := port(f.service(2), 80), eight(f)
		frontend := service.Frontend{Address: at, Protocol: protoTCP}
		set := func(backends []netip.AddrPort) {
			t.Helper()
			if err := d.ApplyServices(map[service.Frontend]service.Service{frontend: {Backends: backends, Affinity: time.Minute}}, nil); err != nil {
				t.Fatal(err)
			}
		}
		set(backends)
		fresh := uint16(1000)
		next := func() netip.AddrPort {
			t.Helper()
			fresh++
			return goesTo(t, d, request(f, protoTCP, fresh, at))
		}
		kept := next()
		for range 30 {
			if got := next(); got != kept {
				t.Fatalf("the client had %s and got %s", kept, got)
			}
		}
		other := request(f, protoTCP, 1, at)
		other.src = f.podAddr(1, 3)
		others := map[netip.AddrPort]bool{}
		for range 30 { // of another client: its own
			other.sport++
			others[goesTo(t, d, other)] = true
		}
		if len(others) != 1 {
			t.Errorf("another client got %v", others)
		}
		// A pause of more than a minute, made by setting the clock of the entry back.
		age := func() {
			t.Helper()
			all, err := entries[podClient, podChoice](d.maps.SlAffinities)
			if err != nil || len(all) == 0 {
				t.Fatal(all, err)
			}
			for k, v := range all {
				v.Seen -= 62
				if err := d.maps.SlAffinities.Put(k, v); err != nil {
					t.Fatal(err)
				}
			}
		}
		seen := map[netip.AddrPort]bool{}
		for range 60 {
			age()
			seen[next()] = true
		}
		if len(seen) < 4 {
			t.Errorf("after 60 pauses the client has only had %v", seen)
		}
		kept = next()
		left := without(backends, kept)
		set(left)
		moved := next()
		if moved == kept {
			t.Errorf("the client got %s, which is gone", kept)
		}
		if again := next(); again != moved {
			t.Errorf("the client had %s and got %s", moved, again)
		}
	})
}

// forget empties a map, as one that is full does with what it holds.
func forget[K comparable, V any](t *testing.T, m *ebpf.Map) {
	t.Helper()
	all, err := entries[K, V](m)
	if err != nil || len(all) == 0 {
		t.Fatal("nothing to forget", err)
	}
	for k := range all {
		if err := m.Delete(k); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPrivilegedLostChoiceIsMadeAgain: whoever fills the maps of choices takes away neither
// another's connection nor a client's backend.
func TestPrivilegedLostChoiceIsMadeAgain(t *testing.T) {
	d := load(t)
	world(t, d)
	each(t, func(t *testing.T, _ int, f family) {
		at, kept := port(f.service(1), 80), port(f.service(2), 80)
		offer(t, d, at, eight(f)...)
		frontend := service.Frontend{Address: kept, Protocol: protoTCP}
		if err := d.ApplyServices(map[service.Frontend]service.Service{frontend: {Backends: eight(f), Affinity: time.Hour}}, nil); err != nil {
			t.Fatal(err)
		}
		before := map[testPacket]netip.AddrPort{}
		for from := range uint16(100) {
			for _, p := range []testPacket{request(f, protoTCP, 1000+from, at), request(f, protoUDP, 1000+from, at), request(f, protoTCP, 1000+from, kept)} {
				to := goesTo(t, d, p)
				p.flags = flagACK
				before[p] = to
			}
		}
		forget[podRequest, podChoice](t, d.maps.SlCtServices)
		forget[podClient, podChoice](t, d.maps.SlAffinities)
		for p, was := range before {
			if is := goesTo(t, d, p); is != was {
				t.Errorf("%+v went to %s and goes to %s", p, was, is)
			}
		}
		forget[podClient, podChoice](t, d.maps.SlAffinities)
		had := request(f, protoTCP, 1000, kept)
		had.flags = flagACK
		if is := goesTo(t, d, request(f, protoTCP, 5000, kept)); is != before[had] {
			t.Errorf("the client had %s and got %s", before[had], is)
		}
	})
}

// TestPrivilegedServiceOfTheStack: what the programs cannot serve is left as it is.
func TestPrivilegedServiceOfTheStack(t *testing.T) {
	d := load(t)
	world(t, d)
	each(t, func(t *testing.T, _ int, f family) {
		at := port(f.service(3), 80)
		backend := port(f.podAddr(2, 9), 8080)
		want := func(p testPacket, to netip.AddrPort) {
			t.Helper()
			if got := goesTo(t, d, p); got != to {
				t.Errorf("%+v goes to %s, want %s", p, got, to)
			}
		}
		want(request(f, protoTCP, 1, at), at)
		offer(t, d, at, backend)
		middle := request(f, protoTCP, 1, at)
		middle.flags = flagACK
		want(middle, at) // of a connection that kube-proxy has
		want(request(f, protoTCP, 1, at), backend)
		want(request(f, protoUDP, 4, port(at.Addr(), 81)), port(at.Addr(), 81))
		want(request(f, protoTCP, 5, at), backend)
		offer(t, d, at)
		want(request(f, protoTCP, 6, at), at)
		sctp := service.Frontend{Address: at, Protocol: protoSCTP}
		same := port(backend.Addr(), at.Port())
		if err := d.ApplyServices(map[service.Frontend]service.Service{sctp: {Backends: []netip.AddrPort{same}}}, nil); err != nil {
			t.Fatal(err)
		}
		want(request(f, protoSCTP, 7, at), same)
		if err := d.ApplyServices(map[service.Frontend]service.Service{sctp: {Backends: []netip.AddrPort{same, backend}}}, nil); err != nil {
			t.Fatal(err)
		}
		want(request(f, protoSCTP, 8, at), at) // its checksum covers the port
	})
}

// services reads back what the kernel has.
func (d *Datapath) services(t *testing.T) map[service.Frontend]service.Service {
	t.Helper()
	all, err1 := entries[podFrontend, podService](d.maps.SlServices)
	slots, err2 := entries[podBackendKey, podBackend](d.maps.SlBackends)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	out := map[service.Frontend]service.Service{}
	for k, v := range all {
		s := service.Service{Affinity: time.Duration(v.Affinity) * time.Second}
		for i := range v.Backends {
			b, ok := slots[podBackendKey{Frontend: k, Index: i}]
			if !ok {
				t.Fatalf("service %v has no backend %d of %d", fromFrontend(k), i, v.Backends)
			}
			s.Backends = append(s.Backends, netip.AddrPortFrom(words.Addr(b.Addr.W), words.Port(b.Port)))
			delete(slots, podBackendKey{Frontend: k, Index: i})
		}
		out[fromFrontend(k)] = s
	}
	if len(slots) != 0 {
		t.Fatalf("backends of no service: %v", slots)
	}
	return out
}

func TestPrivilegedServicesAreReadBack(t *testing.T) {
	d := load(t)
	seed := uint64(os.Getpid())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 3))
	have := map[service.Frontend]service.Service{}
	for step := range 200 {
		want := map[service.Frontend]service.Service{}
		for range r.IntN(12) {
			f := pick(r, families)
			frontend := service.Frontend{Address: port(f.service(r.IntN(5)), uint16(80+r.IntN(2))), Protocol: pick(r, []uint8{protoTCP, protoUDP})}
			s := service.Service{Affinity: pick(r, []time.Duration{0, time.Second, 3 * time.Hour})}
			for i := range 1 + r.IntN(6) {
				if r.IntN(3) > 0 {
					s.Backends = append(s.Backends, port(f.podAddr(2, i), 8080))
				}
			}
			if len(s.Backends) > 0 {
				want[frontend] = s
			}
		}
		var err error
		if step%2 == 0 {
			err = d.SyncServices(want)
		} else {
			var removed []service.Frontend
			for f := range have {
				if _, stays := want[f]; !stays {
					removed = append(removed, f)
				}
			}
			err = d.ApplyServices(want, removed)
		}
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, d.services(t), sameAddrs, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("services in the kernel (-want +got):\n%s", diff)
		}
		have = want
	}
}
