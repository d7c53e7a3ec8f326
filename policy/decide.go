// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Cluster is all that a decision depends on.
type Cluster struct {
	Pods       []Pod
	Namespaces map[string]map[string]string // labels by name; a pod's may be absent, and has no labels then
	Policies   []*networkingv1.NetworkPolicy
	Nodes      map[string][]netip.Addr // addresses by name
}

// Decide says whether a connection may begin, by plain reading of the API: for
// each direction all policies, all rules, all peers and all ports are looked
// at. It shares nothing with [Compiler] but types. Slow: work in proportion to
// pods and policies, at every call.
func Decide(cluster Cluster, x Traffic) Decision {
	x.From, x.To = x.From.Unmap(), x.To.Unmap()
	from, to := cluster.podAt(x.From), cluster.podAt(x.To)
	d := Decision{Traffic: x}
	d.Egress = cluster.side(question{x: x, egress: true, subject: from, peer: to, address: x.To})
	d.Ingress = cluster.side(question{x: x, egress: false, subject: to, peer: from, address: x.From})
	return d
}

// question is one direction of a connection: may the subject have this traffic
// with the peer, who has the address and may be a pod?
type question struct {
	x       Traffic
	egress  bool
	subject *Pod
	peer    *Pod
	address netip.Addr
	trial   bool
}

func (c Cluster) podAt(addr netip.Addr) *Pod {
	var found *Pod
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

func (c Cluster) side(q question) Side {
	if q.subject == nil {
		return Side{Always: "not the address of a pod, so that no policy is asked", Now: Judgement{Allowed: true}, Trial: Judgement{Allowed: true}}
	}
	if q.peer != nil {
		if _, known := c.Namespaces[q.peer.Namespace]; !known {
			q.peer = nil // nobody can say yet what selects it
		}
	}
	s := Side{Pod: q.subject.Namespace + "/" + q.subject.Name, Now: c.judge(q)}
	q.trial = true
	s.Trial = c.judge(q)
	switch {
	case q.x.From == q.x.To:
		s.Always = "a pod may always reach itself"
	case slices.Contains(c.Nodes[q.subject.Node], q.address):
		s.Always = "a pod and its own node may always reach each other"
	}
	if s.Always != "" {
		s.Now.Allowed, s.Trial.Allowed = true, true
	}
	return s
}

func (c Cluster) judge(q question) Judgement {
	var j Judgement
	for _, np := range c.Policies {
		dryRun := np.Annotations[DryRun] == "true"
		if dryRun && !q.trial || np.Namespace != q.subject.Namespace || !isolates(np, q) {
			continue
		}
		j.Isolating = append(j.Isolating, np.Namespace+"/"+np.Name)
		if q.egress {
			for i, r := range np.Spec.Egress {
				j.Allowing = append(j.Allowing, c.allowing(np, fmt.Sprintf("egress[%d]", i), rulePart{r.To, r.Ports}, q)...)
			}
		} else {
			for i, r := range np.Spec.Ingress {
				j.Allowing = append(j.Allowing, c.allowing(np, fmt.Sprintf("ingress[%d]", i), rulePart{r.From, r.Ports}, q)...)
			}
		}
	}
	j.Allowed = len(j.Isolating) == 0 || len(j.Allowing) > 0
	return j
}

// isolates says whether a policy selects the subject, in the direction asked.
func isolates(np *networkingv1.NetworkPolicy, q question) bool {
	if !matches(&np.Spec.PodSelector, q.subject.Labels, true) {
		return false
	}
	if len(np.Spec.PolicyTypes) == 0 {
		return !q.egress || len(np.Spec.Egress) > 0
	}
	want := networkingv1.PolicyTypeIngress
	if q.egress {
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
func (c Cluster) allowing(np *networkingv1.NetworkPolicy, place string, r rulePart, q question) []string {
	place = np.Namespace + "/" + np.Name + " " + place
	if len(r.peers) == 0 {
		return allowingPorts(place, r.ports, q, namesOf(q, nil))
	}
	word := "from"
	if q.egress {
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
func namesOf(q question, peer *networkingv1.NetworkPolicyPeer) []NamedPort {
	switch {
	case !q.egress:
		return q.subject.Ports
	case q.peer == nil, peer != nil && peer.IPBlock != nil:
		return nil
	}
	return q.peer.Ports
}

func (c Cluster) peerMatches(namespace string, peer *networkingv1.NetworkPolicyPeer, q question) bool {
	if peer.IPBlock != nil {
		return peer.PodSelector == nil && peer.NamespaceSelector == nil && blockHolds(peer.IPBlock, q.address)
	}
	if q.peer == nil || peer.PodSelector == nil && peer.NamespaceSelector == nil {
		return false
	}
	if peer.NamespaceSelector == nil {
		if q.peer.Namespace != namespace {
			return false
		}
	} else if !matches(peer.NamespaceSelector, c.Namespaces[q.peer.Namespace], false) {
		return false
	}
	return peer.PodSelector == nil || matches(peer.PodSelector, q.peer.Labels, false)
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

func allowingPorts(place string, ports []networkingv1.NetworkPolicyPort, q question, names []NamedPort) []string {
	if len(ports) == 0 {
		return []string{place}
	}
	var found []string
	for i := range ports {
		if portMatches(&ports[i], q.x, names) {
			found = append(found, fmt.Sprintf("%s ports[%d]", place, i))
		}
	}
	return found
}
