// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/daemonset/kube/objects"
	"github.com/sealane/sealane/policy"
)

var errFull = errors.New("map is full")

// breaks makes the data path refuse changes for which cond holds, and wholes.
func (d *fakeDatapath) breaks(cond func(policy.Changes) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failSync = errFull
	d.fail = func(c policy.Changes) error {
		if cond(c) {
			return errFull
		}
		return nil
	}
}

func (d *fakeDatapath) mended() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail, d.failSync = nil, nil
}

// said returns what was reported: for each report whether something was wrong.
func (r *rig) said() []bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []bool
	for _, err := range r.reports {
		out = append(out, err != nil)
	}
	return out
}

func TestAttachWaitsForTheDataPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.api.setPod(pod("web", "u1", "n1"))
		r.run()
		r.dp.breaks(func(policy.Changes) bool { return true })
		done := r.attaching(t.Context(), ref("web", "u1"), addrA)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		wantWaiting(t, done)
		r.wantNothing(addrA)
		if s := r.Status(); s.Waiting != 1 || s.FailedWrites == 0 || s.Problem == "" {
			t.Errorf("status: %+v", s)
		}
		r.dp.mended()
		time.Sleep(maxRetry)
		synctest.Wait()
		wantDone(t, done)
		r.wantGuard(addrA, false, true)
		if want := []bool{false, true, false}; !slices.Equal(r.said(), want) {
			t.Errorf("reported %v, want %v", r.said(), want)
		}
		if s := r.Status(); s.Waiting != 0 || s.Problem != "" {
			t.Errorf("status: %+v", s)
		}
	})
}

func TestOthersAttachWhileSomethingIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.dp.breaks(func(c policy.Changes) bool { _, ok := c.Set.Identities[far]; return ok })
		r.api.setPod(pod("db", "u", "n2", far))
		r.api.setPod(pod("web", "u1", "n1"))
		synctest.Wait()
		wantDone(t, r.attaching(t.Context(), ref("web", "u1"), addrA))
		r.wantGuard(addrA, false, true)
	})
}

func TestRetriesBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.dp.breaks(func(policy.Changes) bool { return true })
		r.run()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		r.dp.mu.Lock()
		defer r.dp.mu.Unlock()
		// Pauses of 0.1, 0.2, … 25.6 s, and then 30 s, each cut by up to a half.
		if r.dp.syncs < 9+20 || r.dp.syncs > 9+45 {
			t.Errorf("tried %d times in 10 minutes", r.dp.syncs)
		}
	})
}

func TestDetachedWhileTheDataPathFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.api.setPod(pod("web", "u1", "n1"))
		r.run()
		r.dp.breaks(func(policy.Changes) bool { return true })
		ctx, cancel := context.WithCancel(t.Context())
		done := r.attaching(ctx, ref("web", "u1"), addrA)
		cancel()
		synctest.Wait()
		if yes, err := isDone(done); !yes || !errors.Is(err, ErrNotKnown) || err.Error() != "policy is not known yet: pod shop/web: map is full" {
			t.Errorf("returned %t, error %v", yes, err)
		}
		r.dp.mended()
		time.Sleep(maxRetry)
		synctest.Wait()
		r.wantNothing(addrA)
		if s := r.Status(); s.Waiting != 0 {
			t.Errorf("status: %+v", s)
		}
	})
}

func TestManyChangesAreOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.dp.hold = make(chan struct{})
		r.run()
		r.api.setPod(pod("p", "u", "n2", far))
		synctest.Wait() // in ApplyPolicy
		addr := far
		for range 100 {
			addr = addr.Next()
			r.api.setPod(pod(addr.String(), "u", "n2", addr))
		}
		time.Sleep(30 * time.Millisecond)
		r.dp.hold <- struct{}{}
		r.dp.hold <- struct{}{}
		synctest.Wait()
		s := r.Status()
		if r.dp.applies != 2 || s.Identities != 101 {
			t.Errorf("%d differences were written for %d identities", r.dp.applies, s.Identities)
		}
		if s.Delay.Sum < .05 || s.Delay.Sum > .07 {
			t.Errorf("two differences were late by %v s in all, want twice 30 ms", s.Delay.Sum)
		}
		close(r.dp.hold)
	})
}

func TestRunEndsWhileItWaits(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	api := newFakeAPI()
	api.synced = false
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e := New(Config{Node: "n1", Feed: api, Objects: api, Datapath: newFakeDatapath(t)})
	if err := e.Run(ctx); err != nil {
		t.Error(err)
	}
	if err := e.Attach(ctx, ref("web", "u1"), []netip.Addr{addrA}); !errors.Is(err, ErrNotKnown) {
		t.Errorf("attach without Run: error %v", err)
	}
	if s := e.Status(); s.Enforcing || s.Problem == "" {
		t.Errorf("status: %+v", s)
	}
}

func TestAnotherPodAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(cfg *Config) {
			cfg.Ask = func(context.Context, string, string) (objects.Pod, error) { return pod("web", "other", "n1"), nil }
		})
		r.run()
		done := r.attaching(t.Context(), ref("web", "u1"), addrA)
		time.Sleep(time.Hour)
		synctest.Wait()
		wantWaiting(t, done)
		r.wantNothing(addrA)
		r.api.setPod(pod("web", "u1", "n1"))
		synctest.Wait()
		wantDone(t, done)
	})
}

func TestMalformedPolicyIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		r := newRig(t, func(c *Config) {
			c.Malformed = func(p *networkingv1.NetworkPolicy, err error) {
				if errors.Is(err, policy.ErrMalformed) {
					told = append(told, p.Namespace+"/"+p.Name)
				}
			}
		})
		r.run()
		bad := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "bad"}}
		bad.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0"}}}}}
		r.api.setPolicy(bad)
		synctest.Wait()
		if len(told) != 1 || told[0] != "shop/bad" {
			t.Errorf("told of %v", told)
		}
	})
}
