// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/overlay/service"
	"github.com/sealane/sealane/policy"
)

func TestPrivilegedWatchVerdicts(t *testing.T) {
	d := load(t)
	o := world(t, d)
	a, b := netip.MustParseAddr("10.1.1.2"), netip.MustParseAddr("10.1.1.3")
	frontend := netip.MustParseAddrPort("10.96.0.1:443")
	if err := d.SyncServices(map[service.Frontend]service.Service{
		{Address: frontend, Protocol: protoTCP}: {Backends: []netip.AddrPort{port(b, 6443)}},
	}); err != nil {
		t.Fatal(err)
	}
	guards := o.open()
	guards[b] = policy.EndpointPolicy{Ingress: 11, DryRunIngress: 12}
	o.change(t, d, policy.Tables{
		Endpoints: guards, Identities: map[netip.Addr]policy.PeerID{a: 31},
		Sets: map[policy.SetID]policy.Set{11: {Any: 21}, 12: {Any: 22}},
		Ports: map[policy.PortsID][]policy.Ports{
			21: {{Protocol: protoTCP, First: 80, Last: 81}, {Protocol: protoTCP, First: 6443, Last: 6443}, {Protocol: protoUDP, First: 53, Last: 53}},
			22: {{Protocol: protoTCP, First: 80, Last: 80}, {Protocol: protoTCP, First: 6443, Last: 6443}, {Protocol: protoUDP, First: 53, Last: 53}},
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	verdicts, ended := make(chan Verdict, 1000), make(chan error, 1)
	go func() { ended <- d.WatchVerdicts(ctx, func(v Verdict) { verdicts <- v }) }()
	fresh := uint16(20000)
	send := func(proto uint8, to netip.AddrPort) netip.AddrPort {
		fresh++
		d.answer(t, podProgPodEgress, testPacket{src: a, dst: to.Addr(), proto: proto, sport: fresh, dport: to.Port(), flags: flagSYN, ttl: 64})
		return port(a, fresh)
	}
	next := func() Verdict {
		t.Helper()
		select {
		case v := <-verdicts:
			return v
		case <-time.After(patience):
			t.Fatal("no verdict came")
			return Verdict{}
		}
	}
	for watched := false; !watched; { // until the watcher is there, nothing is reported
		send(protoTCP, port(b, 9))
		select {
		case <-verdicts:
			watched = true
		case <-time.After(time.Millisecond):
		}
	}
	marker := send(protoTCP, port(b, 10))
	for v := next(); v.Source != marker; v = next() {
	}
	began := time.Now()
	for _, tc := range []struct {
		name   string
		proto  uint8
		to     netip.AddrPort
		kind   VerdictKind
		reason Reason
	}{
		{"allowed", protoTCP, port(b, 80), VerdictAllowed, 0},
		{"allowed UDP", protoUDP, port(b, 53), VerdictAllowed, 0},
		{"denied", protoTCP, port(b, 79), VerdictDenied, ReasonPolicyIngress},
		{"would be denied", protoTCP, port(b, 81), VerdictDryRunDenied, ReasonPolicyIngress},
		{"by a service", protoTCP, frontend, VerdictAllowed, 0},
	} {
		from := send(tc.proto, tc.to)
		want := Verdict{Source: from, Destination: tc.to, Protocol: tc.proto, Kind: tc.kind, Reason: tc.reason}
		if tc.to == frontend {
			want.Destination, want.Frontend = port(b, 6443), frontend
		}
		got := next()
		if diff := cmp.Diff(want, got, sameAddrs, cmpopts.IgnoreFields(Verdict{}, "Time")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
		if age := got.Time.Sub(began); age < -time.Second || age > patience {
			t.Errorf("%s: the verdict is from %s after the test began", tc.name, age)
		}
	}
	// What goes on is not told of again, but what is cut is.
	udp := port(a, fresh-3)
	again := func() {
		d.answer(t, podProgPodEgress, testPacket{src: a, dst: b, proto: protoUDP, sport: udp.Port(), dport: 53, ttl: 64})
	}
	again()
	guards[b] = policy.EndpointPolicy{Ingress: policy.Closed, DryRunIngress: policy.Closed}
	o.change(t, d, policy.Tables{
		Endpoints: guards, Identities: map[netip.Addr]policy.PeerID{a: 31}, Sets: map[policy.SetID]policy.Set{policy.Closed: {}},
	})
	again()
	if got := next(); got.Kind != VerdictDenied || got.Source != udp || got.Destination != port(b, 53) {
		t.Errorf("after the change came %+v", got)
	}
	c, err := d.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if c.DryRun[ReasonPolicyIngress].Packets != 1 || c.DryRun[ReasonPolicyEgress].Packets != 0 {
		t.Errorf("trials are counted as %v, want one packet in", c.DryRun)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	send(protoTCP, port(b, 79))
	var s podPolicyState
	if err := d.maps.SlPolicyState.Lookup(uint32(0), &s); err != nil || s.Watched != 0 {
		t.Errorf("settings after the end: %+v (%v)", s, err)
	}
}

// TestPrivilegedLostVerdictsAreCounted fills the ring buffer before anybody reads.
func TestPrivilegedLostVerdictsAreCounted(t *testing.T) {
	d := load(t)
	o := world(t, d)
	a, b := netip.MustParseAddr("10.1.1.2"), netip.MustParseAddr("10.1.1.3")
	o.change(t, d, policy.Tables{Endpoints: o.open()})
	if err := d.setWatched(1); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // what is lost is told by the processor that lost it
	defer runtime.UnlockOSThread()
	var before, one unix.CPUSet
	one.Set(0)
	if err := errors.Join(unix.SchedGetaffinity(0, &before), unix.SchedSetaffinity(0, &one)); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &before) }()
	send := func(number int) {
		d.answer(t, podProgPodEgress, testPacket{
			src: a, dst: b, proto: protoTCP, sport: uint16(number), dport: uint16(number >> 16), flags: flagSYN, ttl: 64,
		})
	}
	size := binary.Size(podVerdict{}) + 8 // with the header that the kernel gives it
	room := int(d.maps.SlVerdicts.MaxEntries()) / size
	sent := room + 500
	for i := range sent {
		send(1<<16 + 1 + i)
	}
	ctx, cancel := context.WithCancel(t.Context())
	verdicts, ended := make(chan Verdict, sent+1), make(chan error, 1)
	go func() { ended <- d.WatchVerdicts(ctx, func(v Verdict) { verdicts <- v }) }()
	for n := 0; n < room; n++ {
		if v := <-verdicts; v.Lost != 0 {
			t.Fatalf("verdict %d says that %d are lost", n, v.Lost)
		}
	}
	send(1<<16 + 1 + sent)
	if v := <-verdicts; v.Lost != 500 {
		t.Errorf("the next verdict says that %d are lost, want 500", v.Lost)
	}
	send(1<<16 + 2 + sent)
	if v := <-verdicts; v.Lost != 0 {
		t.Errorf("the one after it says that %d are lost", v.Lost)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	// A daemon that was killed while somebody watched has left it so.
	if err := d.setWatched(1); err != nil {
		t.Fatal(err)
	}
	next, err := Load(Options{PinPath: filepath.Dir(d.pins)})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	var s podPolicyState
	if err := d.maps.SlPolicyState.Lookup(uint32(0), &s); err != nil || s.Watched != 0 {
		t.Errorf("settings after the start of another daemon: %+v (%v)", s, err)
	}
}
