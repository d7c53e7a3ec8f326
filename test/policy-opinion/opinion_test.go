// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package opinion

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sealane/sealane/internal/ipproto"
	"github.com/sealane/sealane/policy"
	"github.com/sealane/sealane/policy/oracle"
	"github.com/sealane/sealane/policy/policytest"
)

// defaulted is a policy as the API server would store it, without what the two
// are known to read differently:
//
//   - NotIn of a label that a pod does not have: true in the API ("... and
//     resources with no such key"), false in cyclonus. Exists beside it makes
//     both say false.
//   - A named port beside an ipBlock, for egress: a pod's name for a port means
//     nothing at an address for Sealane; cyclonus asks the pod that has it.
func defaulted(np *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	np = np.DeepCopy()
	spec := &np.Spec
	if len(spec.PolicyTypes) == 0 {
		spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(spec.Egress) > 0 {
			spec.PolicyTypes = append(spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
	existing(&spec.PodSelector)
	for _, r := range spec.Ingress {
		existingPeers(r.From)
	}
	for i := range spec.Egress {
		r := &spec.Egress[i]
		existingPeers(r.To)
		if slices.ContainsFunc(r.To, func(p networkingv1.NetworkPolicyPeer) bool { return p.IPBlock != nil }) {
			unname(r.Ports)
		}
	}
	return np
}

func existingPeers(peers []networkingv1.NetworkPolicyPeer) {
	for i := range peers {
		existing(peers[i].PodSelector)
		existing(peers[i].NamespaceSelector)
	}
}

func existing(s *metav1.LabelSelector) {
	if s == nil {
		return
	}
	for _, r := range s.MatchExpressions {
		if r.Operator == metav1.LabelSelectorOpNotIn {
			s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: r.Key, Operator: metav1.LabelSelectorOpExists})
		}
	}
}

func unname(ports []networkingv1.NetworkPolicyPort) {
	for i := range ports {
		if ports[i].Port != nil && ports[i].Port.Type == intstr.String {
			ports[i].Port = new(intstr.FromInt32(80))
		}
	}
}

func dryRun(np *networkingv1.NetworkPolicy) bool { return np.Annotations[policy.DryRun] == "true" }

// engine asks cyclonus.
type engine struct {
	cluster oracle.Cluster
	rules   *matcher.Policy
}

func newEngine(cluster oracle.Cluster, trial bool) engine {
	var inForce []*networkingv1.NetworkPolicy
	for _, np := range cluster.Policies {
		if trial || !dryRun(np) {
			inForce = append(inForce, np)
		}
	}
	return engine{cluster, matcher.BuildNetworkPolicies(false, inForce)}
}

func (e engine) podAt(addr netip.Addr) *policy.Pod {
	var owner *policy.Pod
	for i := range e.cluster.Pods {
		pod := &e.cluster.Pods[i]
		if !slices.Contains(pod.Addresses, addr) {
			continue
		}
		if owner == nil || pod.Created.After(owner.Created) || pod.Created.Equal(owner.Created) && pod.UID > owner.UID {
			owner = pod
		}
	}
	return owner
}

func (e engine) peer(addr netip.Addr) *matcher.TrafficPeer {
	p := &matcher.TrafficPeer{IP: addr.String()}
	if pod := e.podAt(addr); pod != nil {
		p.Internal = &matcher.InternalPeer{PodLabels: pod.Labels, NamespaceLabels: e.cluster.Namespaces[pod.Namespace], Namespace: pod.Namespace}
	}
	return p
}

// allows returns the verdicts of egress and ingress. What cyclonus does not
// know, that a pod reaches itself and its own node, is added.
func (e engine) allows(x policy.Traffic) (egress, ingress bool) {
	from, to := e.podAt(x.From), e.podAt(x.To)
	egress = x.From == x.To || from != nil && slices.Contains(e.cluster.Nodes[from.Node], x.To)
	ingress = x.From == x.To || to != nil && slices.Contains(e.cluster.Nodes[to.Node], x.From)
	for _, name := range names(to, x) {
		result := e.rules.IsTrafficAllowed(&matcher.Traffic{
			Source: e.peer(x.From), Destination: e.peer(x.To),
			ResolvedPort: int(x.Port), ResolvedPortName: name, Protocol: protocol(x.Protocol),
		})
		egress = egress || result.Egress.IsAllowed()
		ingress = ingress || result.Ingress.IsAllowed()
	}
	return egress, ingress
}

// names returns the names of the port that is connected to: it may have several
// or none, and cyclonus takes one at a time.
func names(to *policy.Pod, x policy.Traffic) []string {
	out := []string{""}
	if to == nil {
		return out
	}
	for _, p := range to.Ports {
		if p.Protocol == x.Protocol && p.Port == x.Port {
			out = append(out, p.Name)
		}
	}
	return out
}

func protocol(number uint8) corev1.Protocol {
	switch number {
	case ipproto.TCP:
		return corev1.ProtocolTCP
	case ipproto.UDP:
		return corev1.ProtocolUDP
	case ipproto.SCTP:
		return corev1.ProtocolSCTP
	}
	return corev1.Protocol(strconv.Itoa(int(number)))
}

func TestCyclonusAgrees(t *testing.T) {
	allowed, denied := 0, 0
	for seed := range 300 {
		w := policytest.New(rand.NewPCG(uint64(seed), 9))
		w.WellFormed = true
		for range 60 {
			w.Step()
		}
		cluster := w.Cluster()
		for i, np := range cluster.Policies {
			cluster.Policies[i] = defaulted(np)
		}
		for _, pod := range cluster.Pods { // the other one knows no pod without its namespace
			if cluster.Namespaces[pod.Namespace] == nil {
				cluster.Namespaces[pod.Namespace] = map[string]string{}
			}
		}
		now, trial := newEngine(cluster, false), newEngine(cluster, true)
		addrs := w.Addresses()
		for range 500 {
			x := policytest.Pick(w, policytest.Ports()...)
			x.From, x.To = policytest.Pick(w, addrs...).Unmap(), policytest.Pick(w, addrs...).Unmap()
			ours := oracle.Decide(cluster, x)
			got := policy.Verdict{
				Egress: ours.Egress.Now.Allowed, Ingress: ours.Ingress.Now.Allowed,
				DryRunEgress: ours.Egress.DryRun.Allowed, DryRunIngress: ours.Ingress.DryRun.Allowed,
			}
			var theirs policy.Verdict
			theirs.Egress, theirs.Ingress = now.allows(x)
			theirs.DryRunEgress, theirs.DryRunIngress = trial.allows(x)
			if got != theirs {
				t.Fatalf("cluster %d: cyclonus says %+v, Sealane says %+v:\n%v", seed, theirs, got, ours)
			}
			if got.Allowed() {
				allowed++
			} else {
				denied++
			}
		}
	}
	t.Logf("%d verdicts agree: %d allow, %d deny", allowed+denied, allowed, denied)
	if min(allowed, denied) < (allowed+denied)/10 {
		t.Errorf("%d allow and %d deny: too much of one kind to mean much", allowed, denied)
	}
}

// TestKnownDifferences holds what defaulted leaves out to its word: should
// either side change, the comparison above can take it in.
func TestKnownDifferences(t *testing.T) {
	for _, tt := range []struct {
		name   string
		rule   networkingv1.NetworkPolicyEgressRule
		ours   bool
		theirs bool
	}{
		{"NotIn of a label that the pod does not have", networkingv1.NetworkPolicyEgressRule{To: []networkingv1.NetworkPolicyPeer{{
			PodSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: "app", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"x"}},
			}},
		}}}, true, false},
		{"named port of a pod that an ipBlock holds", networkingv1.NetworkPolicyEgressRule{
			To:    []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8"}}},
			Ports: []networkingv1.NetworkPolicyPort{{Port: new(intstr.FromString("web"))}},
		}, false, true},
	} {
		np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "it"}}
		np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
		np.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{tt.rule}
		from, to := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
		cluster := oracle.Cluster{
			Pods: []policy.Pod{
				{Namespace: "n", Name: "from", UID: "1", Addresses: []netip.Addr{from}},
				{Namespace: "n", Name: "to", UID: "2", Addresses: []netip.Addr{to}, Ports: []policy.NamedPort{{Name: "web", Protocol: ipproto.TCP, Port: 80}}},
			},
			Namespaces: map[string]map[string]string{"n": {}},
			Policies:   []*networkingv1.NetworkPolicy{np},
		}
		x := policy.Traffic{From: from, To: to, Protocol: ipproto.TCP, Port: 80}
		if got := oracle.Decide(cluster, x).Allowed(); got != tt.ours {
			t.Errorf("%s: Sealane allows: %v, want %v", tt.name, got, tt.ours)
		}
		if got, _ := newEngine(cluster, false).allows(x); got != tt.theirs {
			t.Errorf("%s: cyclonus allows: %v, want %v", tt.name, got, tt.theirs)
		}
	}
}
