// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package oracle

import (
	"cmp"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sealane/sealane/policy"
)

// Cluster is all that a decision depends on.
type Cluster struct {
	Pods       []policy.Pod
	Namespaces map[string]map[string]string // labels by name; a pod's may be absent, and has no labels then
	Policies   []*networkingv1.NetworkPolicy
	Nodes      map[string][]netip.Addr // addresses by name
}

// Evaluator is one tier of policies.
type Evaluator interface {
	// Evaluate says what becomes of the traffic: it is accepted, denied, or the next tier's
	// business. The reasons are of this tier, and of no interest beside [policy.Next].
	Evaluate(cluster Cluster, q Question) (policy.Outcome, Reasons)
}

// Question is one direction of a connection: may the subject have this traffic
// with the peer, who has the address and may be a pod?
type Question struct {
	Traffic   policy.Traffic
	Direction policy.Direction
	Subject   *policy.Pod
	Peer      *policy.Pod // nil: no pod, or one of a namespace that is not known
	Address   netip.Addr  // of the peer
	DryRun    bool        // as if policies in dry run were in force
}

// Decide reports whether a connection may begin, by plain reading of the API: for
// each direction all policies, all rules, all peers and all ports are looked
// at. It shares nothing with the compiler of tables but types. Slow: work in
// proportion to pods and policies, at every call.
func Decide(cluster Cluster, x policy.Traffic) Decision {
	return decide(cluster, x, []Evaluator{networkPolicies{}})
}

// decide asks tiers in order; they end with accepting everything.
func decide(cluster Cluster, x policy.Traffic, tiers []Evaluator) Decision {
	x.From, x.To = x.From.Unmap(), x.To.Unmap()
	from, to := cluster.podAt(x.From), cluster.podAt(x.To)
	return Decision{
		Traffic: x,
		Egress:  cluster.side(tiers, Question{Traffic: x, Direction: policy.Egress, Subject: from, Peer: to, Address: x.To}),
		Ingress: cluster.side(tiers, Question{Traffic: x, Direction: policy.Ingress, Subject: to, Peer: from, Address: x.From}),
	}
}

func (c Cluster) podAt(addr netip.Addr) *policy.Pod {
	var found *policy.Pod
	for i := range c.Pods {
		pod := &c.Pods[i]
		if !slices.ContainsFunc(pod.Addresses, func(a netip.Addr) bool { return a.Unmap() == addr }) {
			continue
		}
		if found == nil || cmp.Or(pod.Created.Compare(found.Created), cmp.Compare(pod.UID, found.UID)) > 0 {
			found = pod
		}
	}
	return found
}

func (c Cluster) side(tiers []Evaluator, q Question) Side {
	if q.Subject == nil {
		return Side{Always: "not the address of a pod, so that no policy is asked", Now: Judgement{Allowed: true}, DryRun: Judgement{Allowed: true}}
	}
	if q.Peer != nil {
		if _, known := c.Namespaces[q.Peer.Namespace]; !known {
			q.Peer = nil // nobody can say yet what selects it
		}
	}
	s := Side{Pod: q.Subject.Namespace + "/" + q.Subject.Name, Now: c.judge(tiers, q)}
	q.DryRun = true
	s.DryRun = c.judge(tiers, q)
	switch {
	case q.Traffic.From == q.Traffic.To:
		s.Always = "a pod may always reach itself"
	case slices.Contains(c.Nodes[q.Subject.Node], q.Address):
		s.Always = "a pod and its own node may always reach each other"
	}
	if s.Always != "" {
		s.Now.Allowed, s.DryRun.Allowed = true, true
	}
	return s
}

func (c Cluster) judge(tiers []Evaluator, q Question) Judgement {
	for _, tier := range tiers {
		if outcome, reasons := tier.Evaluate(c, q); outcome != policy.Next {
			return Judgement{Allowed: outcome == policy.Accept, Reasons: reasons}
		}
	}
	return Judgement{Allowed: true}
}
