// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policytest

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sealane/sealane/policy"
)

func (w *World) networkPolicy(namespace, name string) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	if w.one(5) {
		np.Annotations = map[string]string{policy.DryRun: Pick(w, "true", "true", "false")}
	}
	np.Spec.PodSelector = *w.selector("app", "tier")
	switch w.IntN(6) {
	case 0:
		np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	case 1:
		np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	case 2, 3:
		np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress, networkingv1.PolicyTypeIngress}
	case 4:
		if w.slip(8) {
			np.Spec.PolicyTypes = []networkingv1.PolicyType{"Sideways"}
		}
	}
	for range w.IntN(3) {
		np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: w.peers(), Ports: w.ports()})
	}
	for range w.IntN(3) {
		np.Spec.Egress = append(np.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: w.peers(), Ports: w.ports()})
	}
	return np
}

func (w *World) selector(keys ...string) *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	if w.one(4) {
		return s
	}
	if w.one(2) {
		s.MatchLabels = map[string]string{Pick(w, keys...): Pick(w, "x", "y")}
	}
	for range w.IntN(3) {
		r := metav1.LabelSelectorRequirement{Key: Pick(w, keys...), Operator: Pick(w,
			metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)}
		if r.Operator == metav1.LabelSelectorOpIn || r.Operator == metav1.LabelSelectorOpNotIn {
			r.Values = Pick(w, []string{"x"}, []string{"y"}, []string{"y", "x"}, []string{"x", "z"})
		}
		if w.slip(40) {
			r.Operator = "Near"
		}
		s.MatchExpressions = append(s.MatchExpressions, r)
	}
	return s
}

func (w *World) peers() []networkingv1.NetworkPolicyPeer {
	var peers []networkingv1.NetworkPolicyPeer
	for range w.IntN(4) {
		var p networkingv1.NetworkPolicyPeer
		switch w.IntN(5) {
		case 0:
			p.PodSelector = w.selector("app", "tier")
		case 1:
			p.NamespaceSelector = w.selector("team", "env", "kubernetes.io/metadata.name")
		case 2:
			p.PodSelector, p.NamespaceSelector = w.selector("app", "tier"), w.selector("team", "env")
		default:
			p.IPBlock = w.ipBlock()
		}
		if w.slip(40) {
			p.IPBlock = w.ipBlock() // perhaps beside a selector
		} else if w.slip(40) {
			p = networkingv1.NetworkPolicyPeer{}
		}
		peers = append(peers, p)
	}
	return peers
}

func cidrs() []string {
	return []string{
		"0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/22", "10.0.0.0/23", "10.0.1.7/24", "10.0.1.0/24", "10.0.1.128/25", "10.0.2.0/24",
		"10.0.1.10/32", "192.168.0.0/16", "192.168.1.0/24", "192.168.1.128/25", "172.16.0.0/30", "::/0", "2001:db8::/32",
		"2001:db8:1::/48", "fd00::/8", "fd00::/124", "fd00::4/126", "fd00::5/128",
	}
}

func (w *World) ipBlock() *networkingv1.IPBlock {
	malformed := []string{"", "10.0.0.0", "10.0.0.0/33", "::ffff:10.0.0.0/104", "10.0.0/8", "fe80::1%eth0/64"}
	b := &networkingv1.IPBlock{CIDR: Pick(w, cidrs()...)}
	if w.slip(30) {
		b.CIDR = Pick(w, malformed...)
	}
	outer, err := netip.ParsePrefix(b.CIDR)
	for range w.IntN(4) {
		text := Pick(w, cidrs()...)
		inner := netip.MustParsePrefix(text)
		if err == nil && outer.Contains(inner.Addr()) && inner.Bits() > outer.Bits() || w.slip(30) {
			b.Except = append(b.Except, text)
		}
	}
	if w.slip(40) {
		b.Except = append(b.Except, Pick(w, malformed...))
	}
	return b
}

func (w *World) ports() []networkingv1.NetworkPolicyPort {
	var ports []networkingv1.NetworkPolicyPort
	for range w.IntN(4) {
		var p networkingv1.NetworkPolicyPort
		if !w.one(4) {
			p.Protocol = new(Pick(w, corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP))
		}
		switch w.IntN(6) {
		case 0:
		case 1, 2:
			p.Port = new(intstr.FromString(Pick(w, "web", "dns", "sig", "alt")))
		default:
			w.number(&p)
		}
		if w.slip(20) {
			w.spoil(&p)
		}
		ports = append(ports, p)
	}
	return ports
}

func (w *World) number(p *networkingv1.NetworkPolicyPort) {
	numbers := []int32{1, 53, 55, 80, 81, 83, 90, 8080, 65535}
	first := w.IntN(len(numbers))
	p.Port = new(intstr.FromInt32(numbers[first]))
	if w.one(2) {
		p.EndPort = new(Pick(w, numbers[first:]...))
	}
}

func (w *World) spoil(p *networkingv1.NetworkPolicyPort) {
	switch w.IntN(5) {
	case 0:
		p.Protocol = new(corev1.Protocol("ICMP"))
	case 1:
		p.Port = new(intstr.FromInt32(0))
	case 2:
		p.Port = new(intstr.FromString(""))
	default:
		p.EndPort = new(Pick(w, int32(0), 80, 65536)) // perhaps of a name, or of nothing
	}
}
