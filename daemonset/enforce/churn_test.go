// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/policy"
	"github.com/sealane/sealane/policy/compile"
)

// kubelet connects and disconnects one pod again and again, each time with
// another UID, and with an address that its neighbour uses, too, at other times.
// What it leaves connected it returns.
func kubelet(ctx context.Context, r *rig, seat int, rounds int) (left cni.PodRef, address netip.Addr) {
	random := rand.New(rand.NewPCG(uint64(seat), 1))
	name := fmt.Sprintf("pod-%d", seat)
	for round := range rounds {
		left = ref(name, fmt.Sprintf("u-%d-%d", seat, round))
		address = netip.AddrFrom4([4]byte{10, 244, 1, byte(10 + seat*2 + round%2)})
		o := pod(name, left.UID, "n1")
		o.Labels = map[string]string{"app": []string{"a", "b"}[random.IntN(2)]}
		o.Created = o.Created.Add(time.Duration(round) * time.Second)
		var shown sync.WaitGroup
		shown.Go(func() { r.api.setPod(o) })
		if err := r.Attach(ctx, left, []netip.Addr{address}); err != nil {
			r.t.Errorf("round %d of %s: %v", round, name, err)
		}
		if _, ok := r.dp.guard(address); !ok {
			r.t.Errorf("round %d of %s: attached without a guard", round, name)
		}
		shown.Wait()
		if round == rounds-1 {
			break
		}
		if random.IntN(2) == 0 {
			r.api.deletePod("shop", name)
			r.Detach([]netip.Addr{address})
		} else {
			r.Detach([]netip.Addr{address})
			r.api.deletePod("shop", name)
		}
	}
	return left, address
}

// TestChurn compares the tables after much coming and going, some of it refused
// by the data path, with what a compiler makes of the end at once.
func TestChurn(t *testing.T) {
	const seats, rounds = 8, 40
	r := newRig(t, func(cfg *Config) { cfg.RetryAfter = time.Millisecond })
	var count int
	r.dp.fail = func(policy.Changes) error {
		if count++; count%7 == 0 {
			return errFull
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var running, seated sync.WaitGroup
	running.Go(func() { _ = r.Run(ctx) })

	attached := make([]Attachment, seats)
	for seat := range seats {
		seated.Go(func() {
			p, a := kubelet(ctx, r, seat, rounds)
			attached[seat] = Attachment{p, []netip.Addr{a}}
		})
	}
	seated.Go(func() {
		for i := range rounds {
			p := deny(fmt.Sprint("p-", i%3))
			p.Spec.PodSelector.MatchLabels = map[string]string{"app": []string{"a", "b"}[i%2]}
			r.api.setPolicy(p)
			r.api.setPod(pod("remote", "u", "n2", netip.AddrFrom4([4]byte{10, 244, 2, byte(i)})))
			if i%4 == 0 {
				r.api.deletePolicy("shop", p.Name)
			}
		}
	})
	seated.Wait()

	want := r.compiledAtOnce(attached)
	for {
		diff := cmp.Diff(want, r.dp.snapshot(), compare, cmpopts.EquateEmpty())
		if diff == "" {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatalf("tables never came right (-want +got):\n%s", diff)
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	running.Wait()
}

// compiledAtOnce is what the tables should be at the end.
func (r *rig) compiledAtOnce(attached []Attachment) policy.Tables {
	c := compile.NewCompiler()
	for name, labels := range r.api.namespaces {
		c.SetNamespace(name, labels.Labels)
	}
	for _, p := range r.api.policies {
		if err := c.SetPolicy(p); err != nil {
			r.t.Error(err)
		}
	}
	for _, o := range r.api.pods {
		p := o.Pod
		for _, a := range attached {
			if same(a.Pod, o) {
				p.Local, p.Addresses = true, a.Addresses
			}
		}
		c.SetPod(p)
	}
	return c.Tables()
}
