// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/objects"
	"github.com/sealane/sealane/policy"
)

var compare = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

// rig is an Enforcer on node n1 between fakes, in a bubble of synctest.
type rig struct {
	*Enforcer
	t   *testing.T
	api *fakeAPI
	dp  *fakeDatapath

	mu      sync.Mutex
	reports []error
}

func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, api: newFakeAPI(), dp: newFakeDatapath(t)}
	cfg := Config{Node: "n1", Feed: r.api, Objects: r.api, Datapath: r.dp, Report: func(err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.reports = append(r.reports, err)
	}}
	if change != nil {
		change(&cfg)
	}
	r.Enforcer = New(cfg)
	r.api.setNamespace("shop", map[string]string{"kubernetes.io/metadata.name": "shop"})
	return r
}

// run runs the Enforcer until the test ends, and returns when it has settled.
func (r *rig) run() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("run ended with %v", err)
		}
	})
	synctest.Wait()
}

// attaching calls Attach in the background.
func (r *rig) attaching(ctx context.Context, pod cni.PodRef, address netip.Addr) <-chan error {
	done := make(chan error, 1)
	go func() { done <- r.Attach(ctx, pod, []netip.Addr{address}) }()
	synctest.Wait()
	return done
}

// isDone reports whether an Attach has returned.
func isDone(done <-chan error) (yes bool, err error) {
	select {
	case err := <-done:
		return true, err
	default:
		return false, nil
	}
}

// wantDone wants an Attach to have returned without error.
func wantDone(t *testing.T, done <-chan error) {
	t.Helper()
	if yes, err := isDone(done); !yes || err != nil {
		t.Fatalf("attach has returned: %t, error %v; want it to have succeeded", yes, err)
	}
}

func wantWaiting(t *testing.T, done <-chan error) {
	t.Helper()
	if yes, err := isDone(done); yes {
		t.Fatalf("attach has returned (%v), want it to wait", err)
	}
}

// wantGuard compares a guard, and an identity with what an address should have.
func (r *rig) wantGuard(a netip.Addr, isolated, identity bool) {
	r.t.Helper()
	g, ok := r.dp.guard(a)
	if !ok || (g.Ingress != policy.NotIsolated) != isolated {
		r.t.Errorf("%v has guard %+v (%t), want one that isolates: %t", a, g, ok, isolated)
	}
	if got := r.dp.identity(a) != 0; got != identity {
		r.t.Errorf("%v has an identity: %t, want %t", a, got, identity)
	}
}

func (r *rig) wantNothing(a netip.Addr) {
	r.t.Helper()
	if g, ok := r.dp.guard(a); ok || r.dp.identity(a) != 0 {
		r.t.Errorf("%v has guard %+v and identity %v, want nothing", a, g, r.dp.identity(a))
	}
}

func pod(name, uid, node string, addresses ...netip.Addr) objects.Pod {
	return objects.Pod{Pod: policy.Pod{
		Namespace: "shop", Name: name, UID: uid, Node: node, Addresses: addresses, Labels: map[string]string{"app": name},
		Created: time.Date(2026, 11, 22, 0, 0, len(uid), 0, time.UTC),
	}}
}

func ref(name, uid string) cni.PodRef { return cni.PodRef{Namespace: "shop", Name: name, UID: uid} }

func deny(name string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec:       networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}},
	}
}

var (
	addrA = netip.MustParseAddr("10.244.1.5")
	addrB = netip.MustParseAddr("10.244.1.6")
	far   = netip.MustParseAddr("10.244.2.7")
)

func TestAttachWaitsForThePod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.api.setPolicy(deny("all"))
		r.run()
		done := r.attaching(t.Context(), ref("web", "u1"), addrA)
		wantWaiting(t, done)
		r.wantNothing(addrA)
		r.api.setPod(pod("web", "u1", "n1"))
		synctest.Wait()
		wantDone(t, done)
		r.wantGuard(addrA, true, true)
		if r.Status().Waiting != 0 {
			t.Errorf("status: %+v", r.Status())
		}
	})
}

func TestAttachWaitsForTheNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		o := pod("web", "u1", "n1")
		o.Namespace = "late"
		r.api.setPod(o)
		done := r.attaching(t.Context(), cni.PodRef{Namespace: "late", Name: "web", UID: "u1"}, addrA)
		wantWaiting(t, done)
		r.api.setNamespace("late", nil)
		synctest.Wait()
		wantDone(t, done)
		r.wantGuard(addrA, false, true)
	})
}

func TestAttachWantsTheVeryPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.api.setPod(pod("web", "old", "n1"))
		r.run()
		done := r.attaching(t.Context(), ref("web", "newer"), addrA)
		wantWaiting(t, done)
		r.wantNothing(addrA)
		r.api.setPod(pod("web", "newer", "n1"))
		synctest.Wait()
		wantDone(t, done)

		static := pod("static", "mirror", "n1")
		static.StaticUID = "hash"
		r.api.setPod(static)
		wantDone(t, r.attaching(t.Context(), ref("static", "hash"), addrB))
		r.wantGuard(addrB, false, true)
		r.api.setPod(pod("plain", "u1", "n1"))
		wantDone(t, r.attaching(t.Context(), ref("plain", ""), netip.MustParseAddr("10.244.1.9")))
	})
}

func TestAttachOfNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.api.setPolicy(deny("all"))
		r.run()
		wantDone(t, r.attaching(t.Context(), cni.PodRef{}, addrA))
		r.wantGuard(addrA, false, false)
		r.dp.mu.Lock()
		r.dp.fail = func(policy.Changes) error { return errors.New("full") }
		r.dp.mu.Unlock()
		r.api.setPod(pod("db", "u", "n2", far)) // the whole is written anew, with nobody's guard
		time.Sleep(time.Second)
		r.wantGuard(addrA, false, false)
		r.dp.mu.Lock()
		r.dp.fail = nil
		r.dp.mu.Unlock()
		r.api.setPod(pod("web", "u1", "n1"))
		wantDone(t, r.attaching(t.Context(), ref("web", "u1"), addrA)) // a DEL was missed
		r.wantGuard(addrA, true, true)
		wantDone(t, r.attaching(t.Context(), cni.PodRef{}, addrA))
		r.wantGuard(addrA, false, false)
		r.Detach([]netip.Addr{addrA})
		synctest.Wait()
		r.wantNothing(addrA)
	})
}

func TestAttachEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		done := r.attaching(ctx, ref("web", "u1"), addrA)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if yes, err := isDone(done); !yes || !errors.Is(err, ErrNotKnown) {
			t.Errorf("returned %t, error %v", yes, err)
		} else if want := "policy is not known yet: pod shop/web: the API server has not shown the pod"; err.Error() != want {
			t.Errorf("got error %q, want %q", err, want)
		}
		r.api.setPod(pod("web", "u1", "n1"))
		synctest.Wait()
		r.wantNothing(addrA)
		if s := r.Status(); s.Waiting != 0 {
			t.Errorf("%d pods are waiting still", s.Waiting)
		}
	})
}

func TestAttachBeforeTheClusterIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.api.change(func() { r.api.synced = false })
		r.api.setPod(pod("web", "u1", "n1"))
		r.dp.tables.Endpoints[addrB] = policy.EndpointPolicy{Ingress: 7} // of an earlier daemon
		r.Restore([]Attachment{{ref("old", "u"), []netip.Addr{addrB}}})
		r.run()
		done := r.attaching(t.Context(), ref("web", "u1"), addrA)
		wantWaiting(t, done)
		if g, _ := r.dp.guard(addrB); g.Ingress != 7 || r.dp.syncs+r.dp.applies > 0 {
			t.Errorf("something was written before the cluster was seen: %+v", r.dp.tables)
		}
		r.api.setPolicy(deny("all"))
		r.api.setPod(pod("old", "u", "n1"))
		r.api.change(func() { r.api.synced = true })
		synctest.Wait()
		wantDone(t, done)
		r.wantGuard(addrA, true, true)
		r.wantGuard(addrB, true, true)
		if s := r.Status(); r.dp.syncs != 1 || r.dp.applies != 0 || !s.Enforcing || s.EndpointPolicies != 2 || s.Identities != 2 {
			t.Errorf("%d syncs, %d applies, status %+v", r.dp.syncs, r.dp.applies, s)
		}
	})
}

func TestRestoredPodThatTheAPIForgot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.dp.tables.Endpoints[addrA], r.dp.tables.Endpoints[addrB] = policy.EndpointPolicy{}, policy.EndpointPolicy{}
		r.Restore([]Attachment{{ref("gone", "u1"), []netip.Addr{addrA}}, {cni.PodRef{}, []netip.Addr{addrB}}})
		r.run()
		r.wantNothing(addrA)
		r.wantGuard(addrB, false, false)
		r.api.setPod(pod("gone", "u1", "n1")) // it was only late, as mirrors of static pods can be
		synctest.Wait()
		r.wantGuard(addrA, false, true)
	})
}

func TestAskedWhenTheWatchIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []time.Duration
		var answer atomic.Pointer[objects.Pod]
		began := time.Now()
		r := newRig(t, func(cfg *Config) {
			cfg.Ask = func(_ context.Context, namespace, name string) (objects.Pod, error) {
				asked = append(asked, time.Since(began))
				if o := answer.Load(); o != nil {
					return *o, nil
				}
				return objects.Pod{}, kube.ErrNotFound
			}
		})
		r.api.setPolicy(deny("all"))
		r.api.setPod(pod("web", "u", "n2", far)) // an older one of that name, elsewhere
		r.run()
		done := r.attaching(t.Context(), ref("web", "new"), addrA)
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		wantWaiting(t, done)
		answer.Store(new(pod("web", "new", "n1")))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantDone(t, done)
		r.wantGuard(addrA, true, true)
		if diff := cmp.Diff([]time.Duration{time.Second, 3 * time.Second}, asked); diff != "" {
			t.Errorf("asked (-want +got):\n%s", diff)
		}
		r.api.deletePod("shop", "web") // the watch catches up: the old one goes first
		synctest.Wait()
		r.wantGuard(addrA, true, true)
		r.wantNothing(far)
		changed := pod("web", "new", "n1")
		changed.Labels = map[string]string{"app": "changed"}
		before := r.dp.identity(addrA)
		r.api.setPod(changed)
		synctest.Wait()
		r.wantGuard(addrA, true, true)
		if r.dp.identity(addrA) == before {
			t.Error("what the watch shows does not replace what was asked for")
		}
	})
}

func TestPolicyThatComesWhileAPodIsAttached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		done := r.attaching(t.Context(), ref("web", "u1"), addrA)
		r.api.setPolicy(deny("all"))
		r.api.setPod(pod("web", "u1", "n1"))
		synctest.Wait()
		wantDone(t, done)
		for _, g := range r.dp.guards[addrA] {
			if g.Ingress == policy.NotIsolated {
				t.Errorf("for a time the guard was %+v", g)
			}
		}
		r.api.deletePolicy("shop", "all")
		synctest.Wait()
		r.wantGuard(addrA, false, true)
	})
}

func TestAddressIsReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		only := deny("b")
		only.Spec.PodSelector.MatchLabels = map[string]string{"app": "b"}
		r.api.setPolicy(only)
		r.api.setPod(pod("a", "u1", "n1"))
		r.run()
		wantDone(t, r.attaching(t.Context(), ref("a", "u1"), addrA))
		r.wantGuard(addrA, false, true)
		of := r.dp.identity(addrA)
		r.api.setPod(pod("b", "u2", "n1"))
		wantDone(t, r.attaching(t.Context(), ref("b", "u2"), addrA)) // the DEL of a was missed
		r.wantGuard(addrA, true, true)
		if r.dp.identity(addrA) == of {
			t.Error("the address has the identity of the pod that had it before")
		}
		r.Detach([]netip.Addr{addrA})
		synctest.Wait()
		r.wantNothing(addrA)
		r.api.deletePod("shop", "a")
		r.api.deletePod("shop", "b")
		synctest.Wait()
		if s := r.Status(); s.EndpointPolicies+s.Identities+s.Sets+s.Rules != 0 {
			t.Errorf("after the last pod there is still %+v", s)
		}
	})
}

func TestPodGoesFromTheAPIFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.api.setPod(pod("web", "u1", "n1"))
		r.run()
		wantDone(t, r.attaching(t.Context(), ref("web", "u1"), addrA))
		r.api.deletePod("shop", "web")
		synctest.Wait()
		r.wantGuard(addrA, false, true)
		r.api.setPolicy(deny("all"))
		synctest.Wait()
		r.wantGuard(addrA, true, true)
		r.api.setPod(pod("web", "other", "n2", far)) // the name is another pod's now
		synctest.Wait()
		r.wantNothing(addrA)
		if r.dp.identity(far) == 0 {
			t.Error("the new pod has no identity")
		}
		r.Detach([]netip.Addr{addrA})
		synctest.Wait()
		if r.dp.identity(far) == 0 {
			t.Error("the end of the old pod takes the new one's identity")
		}
	})
}

func TestAddressesOfLocalPodsAreThoseOfTheirAttachment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.api.setPod(pod("web", "u1", "n1", addrB)) // says the status
		r.api.setPod(pod("db", "u2", "n2", far))
		r.run()
		r.wantNothing(addrB)
		if r.dp.identity(far) == 0 {
			t.Error("the pod of another node has no identity")
		}
		if _, ok := r.dp.guard(far); ok {
			t.Error("the pod of another node has a guard")
		}
		wantDone(t, r.attaching(t.Context(), ref("web", "u1"), addrA))
		r.wantGuard(addrA, false, true)
		r.wantNothing(addrB)
	})
}

// TestPolicyThatTheWatchHasNotBrought: the watch of policies is behind that of
// pods, and a pod waits for it, but not for a policy that is gone again.
func TestPolicyThatTheWatchHasNotBrought(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Bool
		var listed atomic.Pointer[[]*networkingv1.NetworkPolicy]
		r := newRig(t, func(cfg *Config) {
			cfg.Policies = func(context.Context, string) ([]*networkingv1.NetworkPolicy, error) {
				if away.Load() {
					return nil, errors.New("away")
				}
				return *listed.Load(), nil
			}
		})
		first, second := deny("first"), deny("second")
		first.Generation, second.Generation = 2, 1
		listed.Store(&[]*networkingv1.NetworkPolicy{first, second})
		older := deny("first")
		older.Generation = 1
		r.api.setPolicy(older)
		r.api.setPod(pod("web", "u", "n1"))
		r.run()
		done := r.attaching(t.Context(), ref("web", "u"), addrA)
		wantWaiting(t, done)
		r.api.setPolicy(first)
		synctest.Wait()
		wantWaiting(t, done)
		r.api.setPolicy(second)
		synctest.Wait()
		wantDone(t, done)
		r.wantGuard(addrA, true, true)

		third := deny("third")
		listed.Store(&[]*networkingv1.NetworkPolicy{first, second, third})
		r.api.setPod(pod("db", "v", "n1"))
		done = r.attaching(t.Context(), ref("db", "v"), addrB)
		wantWaiting(t, done)
		listed.Store(&[]*networkingv1.NetworkPolicy{first, second}) // it was deleted before the watch ever saw it
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantDone(t, done)

		away.Store(true)
		r.api.setPod(pod("job", "w", "n1"))
		wantDone(t, r.attaching(t.Context(), ref("job", "w"), netip.MustParseAddr("10.244.1.9")))
	})
}
