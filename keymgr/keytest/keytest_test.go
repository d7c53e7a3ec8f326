// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keytest_test

import (
	"testing"

	"github.com/sealane/sealane/keymgr/keytest"
)

func TestPeerKeyIsValidAndRepeatable(t *testing.T) {
	a, b := keytest.PeerKey(t, "a", 7, 51871), keytest.PeerKey(t, "a", 7, 51871)
	if !a.Valid() || !a.Equal(b) {
		t.Errorf("PeerKey gave %v and %v, want one valid key twice", a, b)
	}
	if got, want := a.Ports(), [2]uint16{51873, 51874}; got != want {
		t.Errorf("ports of generation 7 are %v, want %v", got, want)
	}
	if c := keytest.PeerKey(t, "c", 7, 51871); c.Key() == a.Key() {
		t.Error("two seeds gave one key")
	}
}
