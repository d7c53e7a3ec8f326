// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package podnet

import (
	"errors"
	"strings"
	"testing"

	"github.com/sealane/sealane/internal/nettest"
)

// TestPrivilegedCheckWithoutMTU: without an MTU, Check wants both ends to agree.
func TestPrivilegedCheckWithoutMTU(t *testing.T) {
	nettest.Privileged(t)
	host, pod := node(t), nettest.NewNS(t)
	s := spec(pod, "10.9.0.2", "fd00:9::2")
	if _, err := Connect(t.Context(), host.Handle(), s); err != nil {
		t.Fatal(err)
	}
	s.MTU = 0
	if err := Check(host.Handle(), s); err != nil {
		t.Error(err)
	}
	pod.Run("ip", "link", "set", s.IfName, "mtu", "1300")
	if err := Check(host.Handle(), s); !errors.Is(err, ErrDiffers) || !strings.Contains(err.Error(), "eth0 has MTU 1300, want 1420") {
		t.Errorf("Check says %v; want that the MTUs differ", err)
	}
	host.Run("ip", "link", "del", s.HostIfName)
	if err := Check(host.Handle(), s); !errors.Is(err, ErrDiffers) {
		t.Errorf("Check without a device says %v; want ErrDiffers", err)
	}
	if _, err := Connect(t.Context(), host.Handle(), s); !errors.Is(err, ErrSpec) {
		t.Errorf("Connect without an MTU says %v; want ErrSpec", err)
	}
}
