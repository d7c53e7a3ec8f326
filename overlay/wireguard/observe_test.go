// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package wireguard

import (
	"testing"

	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/overlay/backend"
)

func TestStateNamesTheBackend(t *testing.T) {
	for kind, want := range map[string]backend.Type{kernelKind: backend.Kernel, "tun": backend.UserSpace} {
		if got := laneState(nl.Link{Name: "sealane-wg00", Kind: kind}).Backend; got != want {
			t.Errorf("a device of kind %q is served by %q, want %q", kind, got, want)
		}
	}
}
