// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package compile_test

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sealane/sealane/policy"
	"github.com/sealane/sealane/policy/oracle"
	"github.com/sealane/sealane/policy/policytest"
)

// agree compares the tables with the oracle.
func agree(t *testing.T, cluster oracle.Cluster, tables map[string]policy.Tables, x policy.Traffic) {
	t.Helper()
	want := oracle.Decide(cluster, x)
	got := policy.Verdict{Egress: true, Ingress: true, DryRunEgress: true, DryRunIngress: true}
	for node, of := range tables {
		v := of.Verdict(x, cluster.Nodes[node]...)
		got.Egress = got.Egress && v.Egress
		got.Ingress = got.Ingress && v.Ingress
		got.DryRunEgress = got.DryRunEgress && v.DryRunEgress
		got.DryRunIngress = got.DryRunIngress && v.DryRunIngress
	}
	expect := policy.Verdict{
		Egress: want.Egress.Now.Allowed, Ingress: want.Ingress.Now.Allowed,
		DryRunEgress: want.Egress.DryRun.Allowed, DryRunIngress: want.Ingress.DryRun.Allowed,
	}
	if got != expect {
		t.Fatalf("the tables say %+v, the API says %+v:\n%v", got, expect, want)
	}
}

// run lets a world take steps and compares after each: what the changes add up
// to with the whole, and the whole with the oracle.
func run(t *testing.T, w *policytest.World, steps int) {
	t.Helper()
	mirrors := map[string]*policy.Tables{"a": {}, "b": {}}
	ports := policytest.Ports()
	for i := range steps {
		for range 1 + w.IntN(3) {
			w.Step()
		}
		tables := map[string]policy.Tables{}
		for node, c := range w.Compilers {
			for _, ch := range c.Changes() {
				needed(t, *mirrors[node], ch)
				mirrors[node].Apply(ch)
			}
			tables[node] = c.Tables()
			same(t, "changes step by step and the whole", *mirrors[node], tables[node])
			if i%10 == 9 || i == steps-1 {
				same(t, "what has changed and what is new", tables[node], w.Fresh(node).Tables())
			}
		}
		addrs, cluster := w.Addresses(), w.Cluster()
		for range 60 {
			x := policytest.Pick(w, ports...)
			x.From, x.To = policytest.Pick(w, addrs...), policytest.Pick(w, addrs...)
			agree(t, cluster, tables, x)
		}
		if i%500 != 499 {
			continue
		}
		for _, from := range addrs {
			for _, to := range addrs {
				x := policytest.Pick(w, ports...)
				x.From, x.To = from, to
				agree(t, cluster, tables, x)
			}
		}
	}
	forgets(t, w)
}

// needed fails if changes hold an entry that changes nothing.
func needed(t *testing.T, before policy.Tables, ch policy.Changes) {
	t.Helper()
	idle := idleEntries(before.Identities, ch.Set.Identities, ch.Removed.Identities) +
		idleEntries(before.Blocks, ch.Set.Blocks, ch.Removed.Blocks) +
		idleEntries(before.Endpoints, ch.Set.Endpoints, ch.Removed.Endpoints) +
		idleEntries(before.Sets, ch.Set.Sets, ch.Removed.Sets) +
		idleEntries(before.Rules, ch.Set.Rules, ch.Removed.Rules)
	for id := range ch.Set.Ports {
		if before.Ports[id] != nil {
			idle++ // what a number means never changes
		}
	}
	if idle > 0 {
		t.Fatalf("%d entries change nothing: %+v", idle, ch)
	}
}

func idleEntries[K, V comparable](before, set map[K]V, removed []K) int {
	idle := 0
	for k, v := range set {
		if old, present := before[k]; present && old == v {
			idle++
		}
	}
	for _, k := range removed {
		if _, present := before[k]; !present {
			idle++
		}
	}
	return idle
}

func same(t *testing.T, what string, a, b policy.Tables) {
	t.Helper()
	ports := maps.EqualFunc(a.Ports, b.Ports, slices.Equal[[]policy.Ports])
	if ports && maps.Equal(a.Identities, b.Identities) && maps.Equal(a.Blocks, b.Blocks) && maps.Equal(a.Endpoints, b.Endpoints) &&
		maps.Equal(a.Sets, b.Sets) && maps.Equal(a.Rules, b.Rules) {
		return // most are, and this is faster than finding out where they differ
	}
	if diff := cmp.Diff(a, b, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Fatalf("%s differ:\n%s", what, diff)
	}
}

// forgets takes everything away again: nothing may stay, in the tables or in
// the compiler.
func forgets(t *testing.T, w *policytest.World) {
	t.Helper()
	for node, c := range w.Compilers {
		if n := c.Stale(); n > 0 {
			t.Errorf("%s: identities still know of %d criteria that no set uses", node, n)
		}
		for _, pod := range w.Pods {
			c.DeletePod(pod.Namespace, pod.Name)
		}
		for _, np := range w.Policies {
			c.DeletePolicy(np.Namespace, np.Name)
		}
		for name := range w.Namespaces {
			c.DeleteNamespace(name)
		}
		same(t, "no tables and those of an empty cluster", policy.Tables{}, c.Tables())
		left := c.Leftovers()
		if diff := cmp.Diff(make([]int, len(left)), left); diff != "" {
			t.Errorf("the compiler of %s keeps something of a cluster that is gone:\n%s", node, diff)
		}
		if err := c.Err(); err != nil {
			t.Error(err)
		}
	}
}

func TestTablesAgreeWithTheAPI(t *testing.T) {
	worlds, steps := 8, 400
	if text := os.Getenv("SEALANE_POLICY_WORLDS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("read SEALANE_POLICY_WORLDS: %v", err)
		}
		worlds = n
	}
	for seed := range worlds {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			run(t, policytest.New(rand.NewPCG(uint64(seed), 4)), steps)
		})
	}
}

// byteSource takes its choices from a fuzzer's input, and from a fixed stream
// when that is used up.
type byteSource struct {
	data []byte
	rest *rand.PCG
}

func (s *byteSource) Uint64() uint64 {
	if len(s.data) == 0 {
		return s.rest.Uint64()
	}
	b := s.data[0]
	s.data = s.data[1:]
	return uint64(b)<<56 | uint64(b)<<24
}

func FuzzTablesAgreeWithTheAPI(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x10\x20\x30\x80\x90\xa0\xf0\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		run(t, policytest.New(&byteSource{data, rand.NewPCG(1, uint64(len(data)))}), 20)
	})
}
