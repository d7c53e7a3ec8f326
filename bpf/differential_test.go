// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/sealane/sealane/bpf/words"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/policy"
	api "github.com/sealane/sealane/policy/oracle"
	"github.com/sealane/sealane/policy/policytest"
)

// enforcer is a node of a random cluster: its data path, told of the tables that
// the node's compiler makes.
type enforcer struct {
	d      *Datapath
	name   string
	pods   map[netip.Addr]bool // that it has
	fresh  uint16              // the last port that a flow came from
	trials uint64              // packets
}

// settle makes the data path what it is to be after the changes of a cluster.
func (e *enforcer) settle(t *testing.T, w *policytest.World, whole bool) {
	t.Helper()
	c := w.Compilers[e.name]
	steps := c.Changes()
	tables := c.Tables()
	if whole {
		steps = nil
		if err := e.d.SyncPolicy(tables); err != nil {
			t.Fatal(err)
		}
	}
	for _, changes := range steps {
		if err := e.d.ApplyPolicy(changes); err != nil {
			t.Fatal(err)
		}
	}
	for a := range e.pods {
		if _, still := tables.Endpoints[a]; !still {
			if err := e.d.DeleteEndpoint(a); err != nil {
				t.Fatal(err)
			}
			delete(e.pods, a)
		}
	}
	for a := range tables.Endpoints {
		if e.pods[a] {
			continue
		}
		if err := e.d.SetEndpoint(a, Endpoint{Index: loopback, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
		e.pods[a] = true
	}
}

// locate tells a node where all addresses are.
func (e *enforcer) locate(t *testing.T, w *policytest.World, all []*enforcer) {
	t.Helper()
	var forwards []Forward
	for _, other := range all {
		pods, host := Forward{Kind: overlay.PodRemote, Index: 9}, Forward{Kind: overlay.NodeRemote, Index: 9}
		if other == e {
			pods, host = Forward{Kind: overlay.PodLocal}, Forward{Kind: overlay.NodeLocal}
		}
		for a := range other.pods {
			pods.Prefix = single(a)
			forwards = append(forwards, pods)
		}
		for _, a := range w.Nodes[other.name] {
			host.Prefix = single(a)
			forwards = append(forwards, host)
		}
	}
	if err := e.d.SyncForwards(forwards); err != nil {
		t.Fatal(err)
	}
}

// passes sends the first packet of a new flow; dry: dry-run policies would drop it.
func (e *enforcer) passes(t *testing.T, program string, x policy.Traffic) (passed, dry bool) {
	t.Helper()
	e.fresh++
	p := testPacket{src: x.From, dst: x.To, proto: x.Protocol, sport: e.fresh, dport: x.Port, flags: flagSYN, ttl: 64}
	a, b := inOrder(ends(p))
	flow := podFlow{LowPort: words.Port(a.Port()), HighPort: words.Port(b.Port()), Proto: p.proto}
	flow.Low.W, flow.High.W = words.Of(a.Addr()), words.Of(b.Addr())
	// Where there are no ports, there may be one already.
	if err := e.d.maps.SlFlows.Delete(flow); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Fatal(err)
	}
	passed = e.d.answer(t, program, p) != actShot
	var now uint64
	for _, r := range []Reason{ReasonPolicyEgress, ReasonPolicyIngress} {
		n, err := sum(e.d.maps.SlDryRun, uint32(r))
		if err != nil {
			t.Fatal(err)
		}
		now += n.Packets
	}
	dry = now != e.trials
	e.trials = now
	return passed, dry
}

// agree compares what the nodes do with a new flow with what the API says.
func agree(t *testing.T, w *policytest.World, nodes []*enforcer, x policy.Traffic) {
	t.Helper()
	x.From, x.To = x.From.Unmap(), x.To.Unmap()
	want := api.Decide(w.Cluster(), x)
	for _, e := range nodes {
		sends, receives := e.pods[x.From], e.pods[x.To]
		if !sends && !receives {
			continue
		}
		program := podProgPodEgress
		if !sends {
			program = "lane_ingress_l2"
			if !slices.ContainsFunc(nodes, func(o *enforcer) bool { return o != e && (o.pods[x.From] || slices.Contains(w.Nodes[o.name], x.From)) }) {
				program = podProgPodIngress // from this node, or from outside
			}
		}
		allowed := (!sends || want.Egress.Now.Allowed) && (!receives || want.Ingress.Now.Allowed)
		trial := allowed && (sends && !want.Egress.DryRun.Allowed || receives && !want.Ingress.DryRun.Allowed)
		passed, dry := e.passes(t, program, x)
		if passed != allowed || dry != trial {
			t.Fatalf("node %s, %s, port %d to %+v: passed %v, and would not by policies in dry run: %v; want %v, %v:\n%v",
				e.name, program, e.fresh, x, passed, dry, allowed, trial, want)
		}
	}
}

// TestPrivilegedPoliciesAgreeWithTheAPI compares random clusters, and how they
// change, with what a plain reading of the API says. SEALANE_POLICY_CLUSTERS is
// how many clusters; else as many as a short time allows.
func TestPrivilegedPoliciesAgreeWithTheAPI(t *testing.T) {
	clusters, until := 400, time.Now().Add(20*time.Second)
	if text := os.Getenv("SEALANE_POLICY_CLUSTERS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("read SEALANE_POLICY_CLUSTERS: %v", err)
		}
		clusters, until = n, time.Now().Add(24*time.Hour)
	}
	nodes := []*enforcer{{name: "a"}, {name: "b"}}
	for _, e := range nodes {
		e.d, e.pods = load(t), map[netip.Addr]bool{}
	}
	seed, done, flows := uint64(os.Getpid()), 0, 0
	t.Logf("seed %d", seed)
	for ; done < clusters && time.Now().Before(until); done++ {
		w := policytest.New(rand.NewPCG(seed, uint64(done)))
		for range 40 + w.IntN(40) {
			w.Step()
		}
		for round := range 3 {
			for _, e := range nodes {
				e.settle(t, w, round == 0)
			}
			for _, e := range nodes {
				e.locate(t, w, nodes)
			}
			addresses, ports := w.Addresses(), policytest.Ports()
			for range 40 {
				x := policytest.Pick(w, ports...)
				for x.From, x.To = policytest.Pick(w, addresses...), policytest.Pick(w, addresses...); x.From.Unmap().Is4() != x.To.Unmap().Is4(); {
					x.To = policytest.Pick(w, addresses...)
				}
				if (x.Protocol == protoICMP || x.Protocol == proto6) && x.From.Unmap().Is6() {
					x.Protocol = proto6
				} else if x.Protocol == proto6 {
					x.Protocol = protoICMP
				}
				agree(t, w, nodes, x)
				flows++
			}
			for range 1 + w.IntN(3) {
				w.Step()
			}
		}
	}
	t.Logf("%d clusters, %d flows, no difference", done, flows)
	if done == 0 { // an emulated machine needs many seconds for one
		t.Errorf("no cluster in time")
	}
}
