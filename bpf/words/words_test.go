// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package words

import (
	"net/netip"
	"testing"
)

func TestAddressesComeBack(t *testing.T) {
	for _, text := range []string{"10.1.2.3", "0.0.0.0", "255.255.255.255", "fd00:1::2", "::", "::1"} {
		a := netip.MustParseAddr(text)
		if got := Addr(Of(a)); got != a {
			t.Errorf("%s came back as %s", a, got)
		}
	}
	for _, p := range []uint16{0, 1, 256, 51871, 65535} {
		if got := Port(Port(p)); got != p {
			t.Errorf("port %d came back as %d", p, got)
		}
	}
}
