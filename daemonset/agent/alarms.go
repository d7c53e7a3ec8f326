// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"cmp"
	"context"
	"hash/fnv"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sealane/sealane/daemonset/kube"
)

// alarms tells operators, by Events, what is wrong with policies.
type alarms struct {
	node   string
	nodes  func() []kube.Node
	events reporter
}

// incomplete is on this node.
func (a alarms) incomplete(ctx context.Context, err error) {
	spec := kube.EventSpec{
		Kind: kube.KindNode, Name: a.node, Type: kube.EventWarning, Reason: "EnforcementIncomplete", Message: err.Error(),
	}
	for _, n := range a.nodes() {
		if n.Name == a.node {
			spec.UID = n.UID
		}
	}
	a.events.Event(ctx, spec)
}

// malformed is on the policy. Every node finds it out, and one of them tells.
func (a alarms) malformed(ctx context.Context, p *networkingv1.NetworkPolicy, err error) {
	if a.speaker(string(p.UID)) != a.node {
		return
	}
	a.events.Event(ctx, kube.EventSpec{
		Kind: kube.KindPolicy, Namespace: p.Namespace, Name: p.Name, UID: string(p.UID),
		Type: kube.EventWarning, Reason: "PolicyMalformed",
		Message: "it isolates what it selects, and what is malformed allows nothing: " + err.Error(),
	})
}

// speaker chooses a node that is ready for a subject, all nodes the same one as
// long as they see the same nodes.
func (a alarms) speaker(subject string) string {
	weight := func(n kube.Node) uint64 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(subject + "/" + n.Name)) // never fails
		return h.Sum64()
	}
	ready := slices.DeleteFunc(a.nodes(), func(n kube.Node) bool { return !n.Ready && n.Name != a.node })
	if len(ready) == 0 {
		return a.node
	}
	return slices.MaxFunc(ready, func(x, y kube.Node) int { return cmp.Compare(weight(x), weight(y)) }).Name
}
