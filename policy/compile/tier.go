// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package compile

import (
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sealane/sealane/policy"
)

// Evaluator is one tier of policies.
type Evaluator interface {
	// Evaluate adds to rules whom the tier lets the subject talk with, and says what becomes of
	// all other traffic: it is denied, accepted, or the next tier's business. Rules that earlier
	// tiers have added stay.
	Evaluate(s Subject, rules *policy.RuleSet) policy.Outcome
}

// Subject is what tiers are asked about: the new traffic of a pod in one direction.
type Subject struct {
	Pod       *policy.Pod
	Direction policy.Direction
	DryRun    bool // as if policies in dry run were in force
}

// networkPolicies is the tier of NetworkPolicies, by namespace and name.
type networkPolicies map[string]map[string]*policy.Policy

// set returns the policy that is replaced, or nil.
func (n networkPolicies) set(namespace, name string, p *policy.Policy) *policy.Policy {
	if n[namespace] == nil {
		n[namespace] = map[string]*policy.Policy{}
	}
	old := n[namespace][name]
	n[namespace][name] = p
	return old
}

// remove returns the policy that is removed, or nil.
func (n networkPolicies) remove(namespace, name string) *policy.Policy {
	old := n[namespace][name]
	delete(n[namespace], name)
	if len(n[namespace]) == 0 {
		delete(n, namespace)
	}
	return old
}

// Evaluate allows what the policies that isolate the pod allow together, and denies the rest. What
// comes in comes to the pod's own ports, so their names are resolved here; what goes out goes to
// the peer's, which are resolved peer by peer.
func (n networkPolicies) Evaluate(s Subject, rules *policy.RuleSet) policy.Outcome {
	outcome := policy.Next
	for _, p := range n[s.Pod.Namespace] {
		if !p.Isolates[s.Direction] || p.DryRun && !s.DryRun || !p.Selects.Matches(labels.Set(s.Pod.Labels)) {
			continue
		}
		outcome = policy.Deny
		for _, r := range p.Rules[s.Direction] {
			if s.Direction == policy.Ingress {
				r.Ports = r.Ports.Resolve(s.Pod.Ports)
			}
			rules.Add(r)
		}
	}
	return outcome
}
