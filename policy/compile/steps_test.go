// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package compile_test

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"github.com/sealane/sealane/policy"
	"github.com/sealane/sealane/policy/policytest"
)

// writes takes changes apart into single writes, in an order that [policy.Changes]
// allows.
func writes(w *policytest.World, ch policy.Changes) (all []policy.Changes) {
	phase := func(of ...policy.Changes) {
		w.Shuffle(len(of), func(i, j int) { of[i], of[j] = of[j], of[i] })
		all = append(all, of...)
	}
	phase(singles(ch.Set.Ports, func(t *policy.Tables) *map[policy.PortsID][]policy.Ports { return &t.Ports })...)
	phase(slices.Concat(
		singles(ch.Set.Sets, func(t *policy.Tables) *map[policy.SetID]policy.Set { return &t.Sets }),
		singles(ch.Set.Rules, func(t *policy.Tables) *map[policy.Rule]policy.PortsID { return &t.Rules }))...)
	phase(slices.Concat(
		singles(ch.Set.Identities, func(t *policy.Tables) *map[netip.Addr]policy.PeerID { return &t.Identities }),
		singles(ch.Set.Blocks, func(t *policy.Tables) *map[netip.Prefix]policy.PeerID { return &t.Blocks }))...)
	phase(singles(ch.Set.Endpoints, func(t *policy.Tables) *map[netip.Addr]policy.EndpointPolicy { return &t.Endpoints })...)
	phase(goners(ch.Removed.Endpoints, func(k *policy.Keys) *[]netip.Addr { return &k.Endpoints })...)
	phase(slices.Concat(
		goners(ch.Removed.Identities, func(k *policy.Keys) *[]netip.Addr { return &k.Identities }),
		goners(ch.Removed.Blocks, func(k *policy.Keys) *[]netip.Prefix { return &k.Blocks }))...)
	phase(slices.Concat(
		goners(ch.Removed.Rules, func(k *policy.Keys) *[]policy.Rule { return &k.Rules }),
		goners(ch.Removed.Sets, func(k *policy.Keys) *[]policy.SetID { return &k.Sets }))...)
	phase(goners(ch.Removed.Ports, func(k *policy.Keys) *[]policy.PortsID { return &k.Ports })...)
	return all
}

func singles[K comparable, V any](entries map[K]V, at func(*policy.Tables) *map[K]V) (all []policy.Changes) {
	for k, v := range entries {
		var ch policy.Changes
		*at(&ch.Set) = map[K]V{k: v}
		all = append(all, ch)
	}
	return all
}

func goners[K any](keys []K, at func(*policy.Keys) *[]K) (all []policy.Changes) {
	for _, k := range keys {
		var ch policy.Changes
		*at(&ch.Removed) = []K{k}
		all = append(all, ch)
	}
	return all
}

// TestNothingFlickers looks at the tables after every single write: what the API
// says before and after one thing has changed is what they say in between.
func TestNothingFlickers(t *testing.T) {
	for seed := range 4 {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			w := policytest.New(rand.NewPCG(uint64(seed), 6))
			compared := 0
			tables := map[string]*policy.Tables{}
			for node := range w.Compilers {
				tables[node] = &policy.Tables{}
			}
			for range 300 {
				w.Step()
				addrs := w.Addresses()
				for _, node := range slices.Sorted(maps.Keys(w.Compilers)) {
					now := tables[node]
					steps := w.Compilers[node].Changes()
					after := w.Compilers[node].Tables()
					var steady []steadfast
					for range 30 {
						x := policytest.Pick(w, policytest.Ports()...)
						x.From, x.To = policytest.Pick(w, addrs...), policytest.Pick(w, addrs...)
						steady = append(steady, steadfast{x, now.Verdict(x), after.Verdict(x)})
					}
					for _, ch := range steps {
						for _, write := range writes(w, ch) {
							now.Apply(write)
							for _, s := range steady {
								s.compare(t, *now)
								compared++
							}
						}
					}
				}
			}
			t.Logf("%d verdicts", compared)
		})
	}
}

// steadfast is traffic, and what is said of it before and after.
type steadfast struct {
	policy.Traffic
	before, after policy.Verdict
}

func (s steadfast) compare(t *testing.T, now policy.Tables) {
	t.Helper()
	v, before, after := quarters(now.Verdict(s.Traffic)), quarters(s.before), quarters(s.after)
	for i, what := range []string{"egress", "ingress", "dry run egress", "dry run ingress"} {
		if before[i] == after[i] && v[i] != before[i] {
			t.Fatalf("%v: %s is %v before and after, and %v in between", s.Traffic, what, before[i], v[i])
		}
	}
}

func quarters(v policy.Verdict) [4]bool {
	return [4]bool{v.Egress, v.Ingress, v.DryRunEgress, v.DryRunIngress}
}
