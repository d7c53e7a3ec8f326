// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sealane/sealane/policy"
)

// newIsolated returns a rig that runs with one pod here, which a policy isolates.
func newIsolated(t *testing.T) *rig {
	t.Helper()
	r := newRig(t, nil)
	r.api.setPolicy(deny("all"))
	r.api.setPod(pod("web", "u1", "n1"))
	r.run()
	wantDone(t, r.attaching(t.Context(), ref("web", "u1"), addrA))
	return r
}

// TestPoliciesStayAsLongAsThePods: the deletion of a namespace deletes policies before
// pods. They stay in force, also for a pod that is connected meanwhile, until no pod of the
// namespace is left here.
func TestPoliciesStayAsLongAsThePods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIsolated(t)
		r.api.endNamespace("shop", false)
		r.api.deletePolicy("shop", "all")
		synctest.Wait()
		r.wantGuard(addrA, true, true)

		r.api.setPod(pod("db", "u2", "n1")) // it was scheduled before
		wantDone(t, r.attaching(t.Context(), ref("db", "u2"), addrB))
		r.wantGuard(addrB, true, true)
		r.Detach([]netip.Addr{addrB})

		r.api.deletePod("shop", "db")
		r.api.deletePod("shop", "web")
		r.api.endNamespace("shop", true)
		synctest.Wait()
		r.wantGuard(addrA, true, false)
		r.Detach([]netip.Addr{addrA})
		synctest.Wait()
		if s := r.Status(); s.EndpointPolicies+s.Identities+s.Sets+s.Rules != 0 {
			t.Errorf("after the last pod there is still %+v", s)
		}

		r.api.setNamespace("shop", nil) // another one
		r.api.setPod(pod("web", "u3", "n1"))
		wantDone(t, r.attaching(t.Context(), ref("web", "u3"), addrA))
		r.wantGuard(addrA, false, true)
	})
}

// TestPolicyDeletedBeforeTheNamespaceIsSeenToGo: the watch of policies may be ahead of
// that of namespaces. What was deleted long before was meant.
func TestPolicyDeletedBeforeTheNamespaceIsSeenToGo(t *testing.T) {
	for pause, isolated := range map[time.Duration]bool{time.Second: true, 2 * late: false} {
		synctest.Test(t, func(t *testing.T) {
			r := newIsolated(t)
			r.api.deletePolicy("shop", "all")
			synctest.Wait()
			r.wantGuard(addrA, false, true)
			time.Sleep(pause) // in simulated time
			r.api.endNamespace("shop", false)
			synctest.Wait()
			r.wantGuard(addrA, isolated, true)
		})
	}
}

// TestNamespaceThatWasGoingBeforeTheStart: which policies it had, nobody knows. What those
// that are left allow is allowed; it cannot be more than all of them allowed.
func TestNamespaceThatWasGoingBeforeTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.api.endNamespace("shop", false)
		open := deny("open")
		open.Spec.PodSelector.MatchLabels = map[string]string{"app": "db"}
		open.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}}
		r.api.setPolicy(open)
		r.api.setPod(pod("web", "u1", "n1"))
		r.api.setPod(pod("db", "u2", "n1"))
		r.Restore([]Attachment{{ref("web", "u1"), []netip.Addr{addrA}}, {ref("db", "u2"), []netip.Addr{addrB}}})
		r.run()
		if g, ok := r.dp.guard(addrA); !ok || g.Ingress != policy.Closed || g.Egress != policy.Closed {
			t.Errorf("endpoint policy %+v (%t), want it closed", g, ok)
		}
		g, ok := r.dp.guard(addrB)
		if !ok || g.Ingress == policy.Closed || g.Egress != policy.Closed {
			t.Errorf("endpoint policy %+v (%t), want what is left of the policies", g, ok)
		}
		r.api.endNamespace("shop", true)
		r.Detach([]netip.Addr{addrA, addrB})
		r.api.setNamespace("shop", nil)
		r.api.setPod(pod("web", "u3", "n1"))
		r.api.deletePolicy("shop", "open")
		wantDone(t, r.attaching(t.Context(), ref("web", "u3"), addrA))
		r.wantGuard(addrA, false, true)
	})
}

// TestNamespaceIsMadeAgain: policies of the one before end with it, even if a pod of it was
// left behind, for nobody could delete them.
func TestNamespaceIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIsolated(t)
		r.api.endNamespace("shop", true)
		r.api.deletePolicy("shop", "all")
		synctest.Wait()
		r.wantGuard(addrA, true, false)
		r.api.setNamespace("shop", nil)
		synctest.Wait()
		r.wantGuard(addrA, false, true)
	})
}
