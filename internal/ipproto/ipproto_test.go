// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ipproto

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestNumber(t *testing.T) {
	for protocol, want := range map[corev1.Protocol]uint8{"TCP": 6, "UDP": 17, "SCTP": 132, "": 0, "tcp": 0, "ICMP": 0} {
		if got, known := Number(protocol); got != want || known != (want != 0) {
			t.Errorf("%q is %d, %v; want %d", protocol, got, known, want)
		}
	}
}
