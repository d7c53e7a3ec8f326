// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package report

import (
	"cmp"
	"context"
	"hash/fnv"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sealane/sealane/daemonset/kube"
)

// Policies tells operators, by Events, what is wrong with policies.
type Policies struct {
	Node   string // name of this node
	Nodes  func() []kube.Node
	Events Events
}

// Incomplete makes an Event on this node's Node object: part of what is declared is
// not enforced yet, and is denied meanwhile.
func (p Policies) Incomplete(ctx context.Context, err error) {
	spec := kube.EventSpec{
		Kind: kube.KindNode, Name: p.Node, Type: kube.EventWarning, Reason: "EnforcementIncomplete", Message: err.Error(),
	}
	for _, n := range p.Nodes() {
		if n.Name == p.Node {
			spec.UID = n.UID
		}
	}
	p.Events.Event(ctx, spec)
}

// Malformed makes an Event on the policy. Every node finds the fault, and one of
// them makes the Event.
func (p Policies) Malformed(ctx context.Context, policy *networkingv1.NetworkPolicy, err error) {
	if p.speaker(string(policy.UID)) != p.Node {
		return
	}
	p.Events.Event(ctx, kube.EventSpec{
		Kind: kube.KindPolicy, Namespace: policy.Namespace, Name: policy.Name, UID: string(policy.UID),
		Type: kube.EventWarning, Reason: "PolicyMalformed",
		Message: "it isolates what it selects, and what is malformed allows nothing: " + err.Error(),
	})
}

// speaker chooses a ready node for a subject. All nodes choose the same one as long
// as they see the same nodes.
func (p Policies) speaker(subject string) string {
	weight := func(n kube.Node) uint64 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(subject + "/" + n.Name)) // never fails
		return h.Sum64()
	}
	ready := slices.DeleteFunc(p.Nodes(), func(n kube.Node) bool { return !n.Ready && n.Name != p.Node })
	if len(ready) == 0 {
		return p.Node
	}
	return slices.MaxFunc(ready, func(x, y kube.Node) int { return cmp.Compare(weight(x), weight(y)) }).Name
}
