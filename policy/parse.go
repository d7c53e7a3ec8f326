// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policy

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sealane/sealane/internal/ipproto"
)

// parser collects what is wrong with a policy, and goes on.
type parser struct {
	policy string
	errs   []error
}

func (p *parser) reject(field string, value any, remedy string) {
	p.errs = append(p.errs, fmt.Errorf("read policy %s: %w: %s is %q: it allows nothing; %s", p.policy, ErrMalformed, field, fmt.Sprint(value), remedy))
}

// Parse reads a NetworkPolicy. The error wraps [ErrMalformed] and says what is wrong where; the
// Policy is to be enforced all the same: it isolates, and what is malformed allows nothing.
func Parse(np *networkingv1.NetworkPolicy) (*Policy, error) {
	p := parser{policy: np.Namespace + "/" + np.Name}
	c := &Policy{DryRun: np.Annotations[DryRun] == "true"}
	c.Selects, _ = p.selector("spec.podSelector", &np.Spec.PodSelector)
	if c.Selects == nil {
		c.Selects = labels.Everything() // fail closed: whom it means is unknown
	}
	c.Isolates = p.types(&np.Spec)
	for i, r := range np.Spec.Ingress {
		field := fmt.Sprintf("spec.ingress[%d]", i)
		ports := p.ports(field+".ports", r.Ports)
		c.add(Ingress, p.peers(np.Namespace, field+".from", r.From), ports)
	}
	for i, r := range np.Spec.Egress {
		field := fmt.Sprintf("spec.egress[%d]", i)
		ports := p.ports(field+".ports", r.Ports)
		c.add(Egress, p.peers(np.Namespace, field+".to", r.To), ports)
	}
	return c, errors.Join(p.errs...)
}

func (c *Policy) add(d Direction, peers []Peer, ports PortSpec) {
	if !c.Isolates[d] || ports.Empty() {
		return
	}
	for _, peer := range peers {
		c.Rules[d] = append(c.Rules[d], PeerRule{peer, ports})
	}
}

// types says which directions a policy isolates. Absent: ingress always, egress
// if there is a rule for it.
func (p *parser) types(spec *networkingv1.NetworkPolicySpec) [2]bool {
	if len(spec.PolicyTypes) == 0 {
		return [2]bool{Egress: len(spec.Egress) > 0, Ingress: true}
	}
	var isolates [2]bool
	for i, t := range spec.PolicyTypes {
		switch t {
		case networkingv1.PolicyTypeEgress:
			isolates[Egress] = true
		case networkingv1.PolicyTypeIngress:
			isolates[Ingress] = true
		default:
			isolates = [2]bool{true, true}
			p.reject(fmt.Sprintf("spec.policyTypes[%d]", i), t, `write "Ingress" or "Egress"; until then both directions are isolated`)
			return isolates
		}
	}
	return isolates
}

// selector returns nil for one that is malformed, and a canonical form.
func (p *parser) selector(field string, s *metav1.LabelSelector) (labels.Selector, string) {
	parsed, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		p.reject(field, selectorText(s), "correct the selector: "+err.Error())
		return nil, ""
	}
	requirements, _ := parsed.Requirements()
	var texts []string
	for _, r := range requirements {
		texts = append(texts, r.String())
	}
	slices.Sort(texts)
	return parsed, strings.Join(slices.Compact(texts), ",")
}

// selectorText shows a selector that the library refuses to format.
func selectorText(s *metav1.LabelSelector) string {
	var texts []string
	for _, k := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		texts = append(texts, k+"="+s.MatchLabels[k])
	}
	for _, r := range s.MatchExpressions {
		texts = append(texts, fmt.Sprintf("%s %s %v", r.Key, r.Operator, r.Values))
	}
	return strings.Join(texts, ", ")
}

// ports: absent means all, also of protocols without ports; present but
// malformed means none.
func (p *parser) ports(field string, ports []networkingv1.NetworkPolicyPort) PortSpec {
	if len(ports) == 0 {
		return PortSpec{All: true}
	}
	var a PortSpec
	for i := range ports {
		a = a.Union(p.port(fmt.Sprintf("%s[%d]", field, i), &ports[i]))
	}
	return a
}

func (p *parser) port(field string, port *networkingv1.NetworkPolicyPort) PortSpec {
	protocol, known := protocolNumber(port.Protocol)
	if !known {
		p.reject(field+".protocol", *port.Protocol, "write TCP, UDP or SCTP")
		return PortSpec{}
	}
	switch {
	case port.Port == nil && port.EndPort == nil:
		return PortSpec{Ranges: []Ports{{protocol, 0, 65535}}}
	case port.Port == nil:
		p.reject(field+".endPort", *port.EndPort, "write the first port of the range as port")
		return PortSpec{}
	case port.Port.Type == intstr.String:
		return p.namedPort(field, protocol, port)
	}
	first, last := port.Port.IntVal, port.Port.IntVal
	if port.EndPort != nil {
		last = *port.EndPort
	}
	if first < 1 || last < first || last > 65535 {
		p.reject(field, fmt.Sprintf("%d-%d", first, last), "write a port from 1 to 65535, and an endPort that is not less")
		return PortSpec{}
	}
	return PortSpec{Ranges: []Ports{{protocol, uint16(first), uint16(last)}}}
}

func (p *parser) namedPort(field string, protocol uint8, port *networkingv1.NetworkPolicyPort) PortSpec {
	name := port.Port.StrVal
	if name == "" || port.EndPort != nil {
		p.reject(field+".port", name, "write a name and no endPort, or a number")
		return PortSpec{}
	}
	return PortSpec{Named: []NamedPort{{Name: name, Protocol: protocol}}}
}

// protocolNumber reports false for a protocol that policies cannot name. Absent is TCP.
func protocolNumber(protocol *corev1.Protocol) (uint8, bool) {
	if protocol == nil {
		return ipproto.TCP, true
	}
	return ipproto.Number(*protocol)
}

// parsePrefix reads a cidr as the API does: bits of the host are ignored.
func parsePrefix(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return netip.Prefix{}, err
	case prefix.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%s is an IPv4 prefix in IPv6 form", text)
	}
	return prefix.Masked(), nil
}
