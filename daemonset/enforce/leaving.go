// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"maps"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/daemonset/kube/objects"
)

const (
	// late is how much later than the watch of policies that of namespaces may be: as long
	// as it may take to be connected again.
	late = time.Minute
	// unknownPolicies is the policy of a namespace of which nobody knows what policies it
	// had. No object of the API can have this name.
	unknownPolicies = "(policies that were deleted before this daemon started)"
)

// leaving keeps policies of namespaces that are being deleted in force. The API server
// deletes what is in a namespace in any order, so that pods may outlive the policies that
// isolate them (CVE-2024-7598).
type leaving struct {
	policies map[podName]*networkingv1.NetworkPolicy // those of the API, as they were last shown
	kept     map[podName]bool                        // those that are in force although the API has them no more
	deleted  map[podName]deletion                    // those that are not in force since a short time
	met      map[string]bool                         // namespaces that were seen before their deletion began
}

// deletion is a policy that was deleted while its namespace seemed to stay.
type deletion struct {
	policy *networkingv1.NetworkPolicy
	at     time.Time
}

func newLeaving() leaving {
	return leaving{
		policies: map[podName]*networkingv1.NetworkPolicy{}, kept: map[podName]bool{}, deleted: map[podName]deletion{}, met: map[string]bool{},
	}
}

// lookup returns what the API has of a namespace.
type lookup func(name string) (objects.Namespace, bool)

// show takes a policy that the API has.
func (l leaving) show(p *networkingv1.NetworkPolicy) {
	name := podName{p.Namespace, p.Name}
	l.policies[name] = p
	delete(l.kept, name)
	delete(l.deleted, name)
}

// remove takes that the API has no policy of that name any more, and reports whether it
// stays in force: its namespace is being deleted, or has been.
func (l leaving) remove(name podName, in lookup, now time.Time) (stays bool) {
	p, there := l.policies[name]
	delete(l.policies, name)
	space, exists := in(name.namespace)
	switch {
	case !there:
		return l.kept[name]
	case exists && !space.Deleting:
		l.deleted[name] = deletion{p, now}
		return false
	}
	l.kept[name] = true
	return true
}

// turn takes the present state of a namespace, and returns the policies that have to be in
// force from now on: those that the watch showed deleted before it showed that the
// namespace is, and one that isolates all pods if it was never seen before that.
func (l leaving) turn(name string, in lookup, now time.Time) (again []*networkingv1.NetworkPolicy) {
	space, exists := in(name)
	if exists && !space.Deleting {
		l.met[name] = true
		return nil
	}
	if isolating := (podName{name, unknownPolicies}); exists && !l.met[name] && !l.kept[isolating] {
		l.kept[isolating] = true
		again = append(again, isolateAll(isolating))
	}
	if !exists {
		delete(l.met, name)
	}
	for _, p := range slices.SortedFunc(maps.Keys(l.deleted), comparePods) {
		if d := l.deleted[p]; p.namespace == name && now.Sub(d.at) < late {
			l.kept[p] = true
			again = append(again, d.policy)
			delete(l.deleted, p)
		}
	}
	return again
}

// release returns the policies that need not stay in force any more: their namespace has
// gone and so have its pods on this node, or there is a new one of that name.
func (l leaving) release(in lookup, hasPods func(namespace string) bool, now time.Time) (over []podName) {
	maps.DeleteFunc(l.deleted, func(_ podName, d deletion) bool { return now.Sub(d.at) >= late })
	for name := range l.kept {
		space, exists := in(name.namespace)
		if exists && space.Deleting || !exists && hasPods(name.namespace) {
			continue
		}
		delete(l.kept, name)
		over = append(over, name)
	}
	return over
}

func isolateAll(name podName) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: name.namespace, Name: name.name},
		Spec:       networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}},
	}
}

// tellNamespace tells the compiler of a namespace, and of policies that its deletion brings
// back.
func (e *Enforcer) tellNamespace(name string) {
	if space, ok := e.cfg.Objects.Namespace(name); ok {
		e.compiler.SetNamespace(name, space.Labels)
	} else {
		e.compiler.DeleteNamespace(name)
	}
	for _, p := range e.leaving.turn(name, e.cfg.Objects.Namespace, time.Now()) {
		e.cfg.Logger.Info("namespace is being deleted: a policy stays in force until its pods are gone", "policy", name+"/"+p.Name)
		e.setPolicy(p)
	}
}

// releasePolicies takes policies out of force whose namespace has left this node.
func (e *Enforcer) releasePolicies() {
	hasPods := func(namespace string) bool {
		for p := range e.index.pods {
			if p.namespace == namespace {
				return true
			}
		}
		return false
	}
	for _, p := range e.leaving.release(e.cfg.Objects.Namespace, hasPods, time.Now()) {
		e.compiler.DeletePolicy(p.namespace, p.name)
	}
}
