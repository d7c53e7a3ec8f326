// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package oracle

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sealane/sealane/policy"
)

// portMatches reads one entry of a rule's ports for Decide.
func portMatches(p *networkingv1.NetworkPolicyPort, x policy.Traffic, names []policy.NamedPort) bool {
	if !protocolMatches(p.Protocol, x.Protocol) {
		return false
	}
	if p.Port == nil {
		return p.EndPort == nil // an end without a beginning is malformed
	}
	if p.Port.Type == intstr.String {
		return p.EndPort == nil && nameMatches(p.Port.StrVal, x, names)
	}
	first, last := int(p.Port.IntVal), int(p.Port.IntVal)
	if p.EndPort != nil {
		last = int(*p.EndPort)
	}
	if first < 1 || last > 65535 {
		return false
	}
	return first <= int(x.Port) && int(x.Port) <= last
}

func protocolMatches(named *corev1.Protocol, number uint8) bool {
	protocol := corev1.ProtocolTCP
	if named != nil {
		protocol = *named
	}
	return protocol == corev1.ProtocolTCP && number == 6 ||
		protocol == corev1.ProtocolUDP && number == 17 ||
		protocol == corev1.ProtocolSCTP && number == 132
}

func nameMatches(name string, x policy.Traffic, names []policy.NamedPort) bool {
	for _, n := range names {
		if n.Name != "" && n.Name == name && n.Protocol == x.Protocol && n.Port == x.Port {
			return true
		}
	}
	return false
}
