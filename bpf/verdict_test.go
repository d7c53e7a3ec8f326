// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/policy"
)

// load gives a data path with pins of its own, gone with the test.
func load(t testing.TB) *Datapath {
	t.Helper()
	return loadAt(t, nettest.BPFFS(t))
}

func loadAt(t testing.TB, pins string) *Datapath {
	t.Helper()
	return loadWith(t, Options{PinPath: pins})
}

func loadWith(t testing.TB, o Options) *Datapath {
	t.Helper()
	nettest.Privileged(t)
	links, err := nl.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { links.Close() })
	o.Links = links
	d, err := Load(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

type skb struct {
	_       [2]uint32
	Mark    uint32
	_       [6]uint32
	Ingress uint32
	Ifindex uint32
}

// skbOut is all of what the kernel gives back of a packet.
type skbOut struct {
	skb
	_ [37]uint32
}

func (p testPacket) mark() uint32 {
	if p.forwarded {
		return forwardedMark
	}
	return 0
}

func (d *Datapath) run(t testing.TB, program string, p testPacket) verdict {
	t.Helper()
	before, err := d.Counters()
	if err != nil {
		t.Fatal(err)
	}
	data, out := p.bytes(), skbOut{}
	action, err := d.programs[program].Run(&ebpf.RunOptions{
		Data: data, DataOut: make([]byte, len(data)+64), Context: skb{Ifindex: loopback, Mark: p.mark()}, ContextOut: &out,
	})
	if err != nil {
		t.Fatalf("run %s on %+v: %v", program, p, err)
	}
	after, err := d.Counters()
	if err != nil {
		t.Fatal(err)
	}
	v := verdict{Action: action, Answer: out.Mark&answerMark != 0}
	for r, n := range after.Drops {
		if n.Packets != before.Drops[r].Packets {
			v.Drop = r
		}
	}
	for r, n := range after.DryRun {
		if n.Packets != before.DryRun[r].Packets {
			v.Trial = r
		}
	}
	for path, n := range after.Paths {
		if n.Packets != before.Paths[path].Packets {
			v.Path = path.String()
		}
	}
	return v
}

const loopback = 1 // the one device that every namespace has

func addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, s := range texts {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

const (
	// steps is how many random packets each program meets. The flows that one
	// packet makes are there for the next.
	steps = 20000
	// memory bounds the time that they may take on a slow machine: the programs
	// forget an idle flow after 180 s (src/flow.h), the oracle never does.
	memory = 150 * time.Second
	// fewSteps is for an emulated machine, and still meets every verdict.
	fewSteps = 5000
)

func TestPrivilegedProgramsAgreeWithOracle(t *testing.T) {
	d := loadWith(t, Options{PinPath: nettest.BPFFS(t), NodePorts: []policy.Ports{{Protocol: protoUDP, First: peerPort, Last: peerPort}}})
	o := world(t, d)
	seed := uint64(os.Getpid())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	seen, trials := map[verdict]int{}, map[Reason]int{}
	o.change(t, d, policy.Tables{Endpoints: o.open()})
	all := everyAddress()
	podAndNode := addrs("10.1.1.2", "172.30.0.2", "fd00:1:1::2", "fd00:30::2") // a pod and another node
	began, count := time.Now(), steps
	if testing.Short() {
		count = fewSteps
	}
	for step := range count {
		if time.Since(began) > memory {
			t.Logf("slow machine: %d of %d packets", step, count)
			break
		}
		p := randomPacket(r, all, all)
		if r.IntN(4) == 0 { // at random, few are between the two
			p = randomPacket(r, podAndNode, podAndNode)
		}
		if r.IntN(100) == 0 {
			o.change(t, d, randomTables(r, o))
		}
		var program string
		var want verdict
		switch r.IntN(8) {
		case 0:
			p.forwarded = r.IntN(2) == 0
			program, want = "pod_ingress", o.podIngress(p)
		case 1:
			program, want = "lane_egress_l2", o.laneEgress(p)
		case 2:
			program, want = "uplink_egress_l2", o.uplink(p, ReasonLeakEgress)
		case 3:
			program, want = "uplink_ingress_l2", o.uplink(p, ReasonLeakIngress)
		case 4, 5:
			program, want = "lane_ingress_l2", o.laneIngress(p)
		default:
			program, want = "pod_egress", o.podEgress(p, loopback)
		}
		got := d.run(t, program, p)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s on %+v (-oracle +program):\n%s", program, p, diff)
		}
		seen[want]++
		trials[want.Trial]++
	}
	if trials[ReasonPolicyEgress] == 0 || trials[ReasonPolicyIngress] == 0 {
		t.Errorf("no packet met a dry-run policy: %v", trials)
	}
	for _, v := range []verdict{
		{actRedirect, 0, "local", false, 0},
		{actRedirect, 0, "lane_out", false, 0},
		{actRedirect, 0, "lane_in", false, 0},
		{actOK, 0, "stack_out", false, 0},
		{actOK, 0, "stack_out", true, 0},
		{actOK, ReasonNoLane, "", false, 0},
		{actShot, ReasonSpoofedSource, "", false, 0},
		{actShot, ReasonLinkLocal, "", false, 0},
		{actShot, ReasonMulticast, "", false, 0},
		{actShot, ReasonLeakEgress, "", false, 0},
		{actShot, ReasonLaneSource, "", false, 0},
		{actShot, ReasonLaneDestination, "", false, 0},
		{actOK, 0, "stack_in", false, 0},
		{actOK, ReasonNoEndpoint, "", false, 0},
		{actShot, ReasonMalformed, "", false, 0},
		{actShot, ReasonPolicyEgress, "", false, 0},
		{actShot, ReasonPolicyIngress, "", false, 0},
		{actShot, ReasonPolicyUnknown, "", false, 0},
		{actShot, ReasonPolicyPeer, "", false, 0},
		{actShot, ReasonNodePort, "", false, 0},
		{actShot, ReasonLoopback, "", false, 0},
	} {
		if seen[v] == 0 {
			t.Errorf("no packet met %+v: the test does not cover it", v)
		}
	}
}

func TestPrivilegedRedirectRewritesPacket(t *testing.T) {
	d := load(t)
	world(t, d)
	for _, tc := range []struct{ name, src, dst string }{
		{"IPv4", "10.1.1.2", "10.1.1.3"},
		{"IPv6", "fd00:1:1::2", "fd00:1:1::3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := testPacket{src: netip.MustParseAddr(tc.src), dst: netip.MustParseAddr(tc.dst), proto: protoUDP, sport: 7, dport: 8, ttl: 64}
			out := make([]byte, 256)
			o := ebpf.RunOptions{Data: p.bytes(), DataOut: out, Context: skb{Ifindex: loopback}}
			if _, err := d.programs[podProgPodEgress].Run(&o); err != nil {
				t.Fatal(err)
			}
			want := p
			want.ttl = 63
			wire := want.bytes()
			copy(wire, []byte{2, 0, 0, 0, 0, 1, 0xee, 0xee, 0xee, 0x5e, 0xa1, 0x01})
			if diff := cmp.Diff(wire, o.DataOut[:len(wire)]); diff != "" {
				t.Errorf("packet after pod_egress (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPrivilegedMarksEndAtTheLane: a mark of ours that went into a lane would lead
// VXLAN's outer packet there again. Those of others are none of our business.
func TestPrivilegedMarksEndAtTheLane(t *testing.T) {
	d := load(t)
	world(t, d)
	p := testPacket{src: netip.MustParseAddr("172.30.0.1"), dst: netip.MustParseAddr("172.30.0.2"), proto: protoUDP, sport: 7, dport: 8, ttl: 64}
	out := skbOut{}
	action, err := d.programs["lane_egress_l2"].Run(&ebpf.RunOptions{
		Data: p.bytes(), Context: skb{Ifindex: loopback, Mark: answerMark | forwardedMark | laneMark | 0x4000}, ContextOut: &out,
	})
	if err != nil || action != actOK || out.Mark != 0x4000 {
		t.Errorf("action %d, mark %#x, error %v", action, out.Mark, err)
	}
}

func TestPrivilegedMalformedIsDropped(t *testing.T) {
	d := load(t)
	world(t, d)
	good := testPacket{src: netip.MustParseAddr("10.1.1.2"), dst: netip.MustParseAddr("10.1.1.3"), proto: protoTCP, flags: flagSYN, ttl: 64}.bytes()
	for name, mutate := range map[string]func([]byte) []byte{
		"header length": func(b []byte) []byte { b[14] = 0x41; return b },
		"version":       func(b []byte) []byte { b[14] = 0x65; return b },
		"cut":           func(b []byte) []byte { return b[:14+20+8] },
		"mapped": func([]byte) []byte { // an IPv4 address in an IPv6 packet
			b := testPacket{src: netip.MustParseAddr("fd00:1:1::2"), dst: netip.MustParseAddr("fd00:1:1::3"), proto: protoUDP, ttl: 64}.bytes()
			mapped := netip.MustParseAddr("10.1.1.2").As16()
			copy(b[14+8:], mapped[:])
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			data := mutate(append([]byte(nil), good...))
			action, err := d.programs[podProgPodEgress].Run(&ebpf.RunOptions{Data: data, Context: skb{Ifindex: loopback}})
			if err != nil || action != actShot {
				t.Errorf("action %d, error %v; want %d", action, err, actShot)
			}
		})
	}
}

func TestPrivilegedSyncForwardsReplacesAll(t *testing.T) {
	d := load(t)
	o := world(t, d)
	want := o.forwards[:4]
	if err := d.SyncForwards(want); err != nil {
		t.Fatal(err)
	}
	have, err := entries[podPrefix, podForward](d.maps.SlForwards)
	if err != nil {
		t.Fatal(err)
	}
	got := map[netip.Prefix]overlay.ForwardKind{}
	for k, v := range have {
		got[decodePrefix(k)] = overlay.ForwardKind(v.Kind)
	}
	expect := map[netip.Prefix]overlay.ForwardKind{}
	for _, f := range want {
		expect[f.Prefix.Masked()] = f.Kind
	}
	if diff := cmp.Diff(expect, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("forwards (-want +got):\n%s", diff)
	}
}

// TestReasonsMatchC keeps the two lists of drop reasons and paths one list.
func TestReasonsMatchC(t *testing.T) {
	for r, c := range map[Reason]podDropReason{
		ReasonMalformed: podDropReasonDROP_MALFORMED, ReasonSpoofedSource: podDropReasonDROP_SPOOFED_SOURCE,
		ReasonLinkLocal: podDropReasonDROP_LINK_LOCAL, ReasonMulticast: podDropReasonDROP_MULTICAST,
		ReasonProtocol: podDropReasonDROP_PROTOCOL, ReasonNoLane: podDropReasonDROP_NO_LANE,
		ReasonNoEndpoint: podDropReasonDROP_NO_ENDPOINT, ReasonLaneSource: podDropReasonDROP_LANE_SOURCE,
		ReasonLaneDestination: podDropReasonDROP_LANE_DESTINATION, ReasonLeakEgress: podDropReasonDROP_LEAK_EGRESS,
		ReasonLeakIngress: podDropReasonDROP_LEAK_INGRESS, ReasonHelper: podDropReasonDROP_HELPER,
		ReasonPolicyEgress: podDropReasonDROP_POLICY_EGRESS, ReasonPolicyIngress: podDropReasonDROP_POLICY_INGRESS,
		ReasonPolicyUnknown: podDropReasonDROP_POLICY_UNKNOWN, ReasonPolicyPeer: podDropReasonDROP_POLICY_PEER,
		ReasonNodePort: podDropReasonDROP_NODE_PORT, ReasonLoopback: podDropReasonDROP_LOOPBACK,
	} {
		if uint32(r) != uint32(c) || r.String() == "unknown" {
			t.Errorf("reason %q is %d in Go and %d in C", r, r, c)
		}
	}
	for p, c := range map[Path]podPath{
		PathLocal: podPathPATH_LOCAL, PathLaneOut: podPathPATH_LANE_OUT, PathLaneIn: podPathPATH_LANE_IN,
		PathStackOut: podPathPATH_STACK_OUT, PathStackIn: podPathPATH_STACK_IN,
	} {
		if uint32(p) != uint32(c) || p.String() == "unknown" {
			t.Errorf("path %q is %d in Go and %d in C", p, p, c)
		}
	}
}
