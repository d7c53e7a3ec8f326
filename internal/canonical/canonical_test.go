// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package canonical_test

import (
	"net/netip"
	"testing"

	"github.com/sealane/sealane/internal/canonical"
)

func TestAddress(t *testing.T) {
	for text, want := range map[string]bool{
		"10.0.0.1": true, "fd00::1": true, "0.0.0.0": true, "fe80::1%eth0": false, "::ffff:10.0.0.1": false,
	} {
		if got := canonical.Address(netip.MustParseAddr(text)); got != want {
			t.Errorf("Address(%s) = %t, want %t", text, got, want)
		}
	}
	if canonical.Address(netip.Addr{}) {
		t.Error("the zero address is canonical")
	}
}

func TestPrefix(t *testing.T) {
	for text, want := range map[string]bool{
		"10.0.0.0/8": true, "fd00::/8": true, "0.0.0.0/0": true, "10.0.0.1/8": false, "::ffff:10.0.0.0/104": false,
	} {
		if got := canonical.Prefix(netip.MustParsePrefix(text)); got != want {
			t.Errorf("Prefix(%s) = %t, want %t", text, got, want)
		}
	}
	if canonical.Prefix(netip.Prefix{}) {
		t.Error("the zero prefix is canonical")
	}
}
