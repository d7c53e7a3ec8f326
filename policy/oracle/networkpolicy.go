// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package oracle

import (
	"fmt"
	"net/netip"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sealane/sealane/policy"
)

// networkPolicies is the tier of NetworkPolicies. It passes on what is said of pods that none of
// them isolates.
type networkPolicies struct{}

// Evaluate asks all policies of the subject's namespace.
func (networkPolicies) Evaluate(c Cluster, q Question) (policy.Outcome, Reasons) {
	var r Reasons
	for _, np := range c.Policies {
		dryRun := np.Annotations[policy.DryRun] == "true"
		if dryRun && !q.DryRun || np.Namespace != q.Subject.Namespace || !isolates(np, q) {
			continue
		}
		r.Isolating = append(r.Isolating, np.Namespace+"/"+np.Name)
		if q.Direction == policy.Egress {
			for i, rule := range np.Spec.Egress {
				r.Allowing = append(r.Allowing, c.allowing(np, fmt.Sprintf("egress[%d]", i), rulePart{rule.To, rule.Ports}, q)...)
			}
		} else {
			for i, rule := range np.Spec.Ingress {
				r.Allowing = append(r.Allowing, c.allowing(np, fmt.Sprintf("ingress[%d]", i), rulePart{rule.From, rule.Ports}, q)...)
			}
		}
	}
	switch {
	case len(r.Isolating) == 0:
		return policy.Next, Reasons{}
	case len(r.Allowing) > 0:
		return policy.Accept, r
	}
	return policy.Deny, r
}

// isolates reports whether a policy selects the subject, in the direction asked.
func isolates(np *networkingv1.NetworkPolicy, q Question) bool {
	if !matches(&np.Spec.PodSelector, q.Subject.Labels, true) {
		return false
	}
	if len(np.Spec.PolicyTypes) == 0 {
		return q.Direction == policy.Ingress || len(np.Spec.Egress) > 0
	}
	want := networkingv1.PolicyTypeIngress
	if q.Direction == policy.Egress {
		want = networkingv1.PolicyTypeEgress
	}
	for _, t := range np.Spec.PolicyTypes {
		unknown := t != networkingv1.PolicyTypeIngress && t != networkingv1.PolicyTypeEgress
		if t == want || unknown {
			return true
		}
	}
	return false
}

// matches asks a selector; one that is malformed answers as said.
func matches(s *metav1.LabelSelector, set map[string]string, malformed bool) bool {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return malformed
	}
	return selector.Matches(labels.Set(set))
}

// rulePart is what rules for ingress and egress have in common.
type rulePart struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

// allowing names every combination of peer and port of a rule that allows.
func (c Cluster) allowing(np *networkingv1.NetworkPolicy, place string, r rulePart, q Question) []string {
	place = np.Namespace + "/" + np.Name + " " + place
	if len(r.peers) == 0 {
		return allowingPorts(place, r.ports, q, namesOf(q, nil))
	}
	word := "from"
	if q.Direction == policy.Egress {
		word = "to"
	}
	var found []string
	for i := range r.peers {
		peer := &r.peers[i]
		if c.peerMatches(np.Namespace, peer, q) {
			found = append(found, allowingPorts(fmt.Sprintf("%s %s[%d]", place, word, i), r.ports, q, namesOf(q, peer))...)
		}
	}
	return found
}

// namesOf returns the named ports that a rule's names mean: those of the pod
// that is connected to. An ipBlock means addresses and not pods, so that there
// are no names.
func namesOf(q Question, peer *networkingv1.NetworkPolicyPeer) []policy.NamedPort {
	switch {
	case q.Direction == policy.Ingress:
		return q.Subject.Ports
	case q.Peer == nil, peer != nil && peer.IPBlock != nil:
		return nil
	}
	return q.Peer.Ports
}

func (c Cluster) peerMatches(namespace string, peer *networkingv1.NetworkPolicyPeer, q Question) bool {
	if peer.IPBlock != nil {
		return peer.PodSelector == nil && peer.NamespaceSelector == nil && blockHolds(peer.IPBlock, q.Address)
	}
	if q.Peer == nil || peer.PodSelector == nil && peer.NamespaceSelector == nil {
		return false
	}
	if peer.NamespaceSelector == nil {
		if q.Peer.Namespace != namespace {
			return false
		}
	} else if !matches(peer.NamespaceSelector, c.Namespaces[q.Peer.Namespace], false) {
		return false
	}
	return peer.PodSelector == nil || matches(peer.PodSelector, q.Peer.Labels, false)
}

func blockHolds(b *networkingv1.IPBlock, addr netip.Addr) bool {
	cidr, err := netip.ParsePrefix(b.CIDR)
	if err != nil || cidr.Addr().Is4In6() {
		return false
	}
	holds := cidr.Contains(addr)
	for _, text := range b.Except {
		except, err := netip.ParsePrefix(text)
		if err != nil || except.Addr().Is4In6() {
			return false
		}
		if !cidr.Contains(except.Addr()) || except.Bits() <= cidr.Bits() {
			return false // the API wants a strict part of the cidr
		}
		if except.Contains(addr) {
			holds = false
		}
	}
	return holds
}

func allowingPorts(place string, ports []networkingv1.NetworkPolicyPort, q Question, names []policy.NamedPort) []string {
	if len(ports) == 0 {
		return []string{place}
	}
	var found []string
	for i := range ports {
		if portMatches(&ports[i], q.Traffic, names) {
			found = append(found, fmt.Sprintf("%s ports[%d]", place, i))
		}
	}
	return found
}
