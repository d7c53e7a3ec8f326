// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package ipproto has the numbers of the protocols that the Kubernetes API can
// name, as they are in the IP header.
package ipproto

import corev1 "k8s.io/api/core/v1"

// The protocols with ports.
const (
	TCP  uint8 = 6
	UDP  uint8 = 17
	SCTP uint8 = 132
)

// Number returns the number of a protocol. It reports false for the empty name, which means TCP in
// most places of the API, and for every other that is not one of the three.
func Number(protocol corev1.Protocol) (uint8, bool) {
	switch protocol {
	case corev1.ProtocolTCP:
		return TCP, true
	case corev1.ProtocolUDP:
		return UDP, true
	case corev1.ProtocolSCTP:
		return SCTP, true
	}
	return 0, false
}
