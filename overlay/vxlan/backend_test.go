// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package vxlan_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/overlay/vxlan"
)

func plan(mtu int, addresses ...string) overlay.Plan {
	p := overlay.Plan{
		Kind: overlay.VXLAN, MTU: mtu,
		Tunnels: []overlay.Tunnel{{Device: overlay.VXLANDevice, Port: overlay.VXLANPort}},
	}
	for _, a := range addresses {
		p.Addresses = append(p.Addresses, netip.MustParsePrefix(a))
	}
	return p
}

func TestPrivilegedApply(t *testing.T) {
	nettest.Privileged(t)
	ns := nettest.NewNS(t)
	h := ns.Handle()
	b := vxlan.New(h)
	// A device of the same name and of another kind is in the way.
	if _, err := h.AddVeth(nl.Veth{Name: overlay.VXLANDevice, PeerName: "x"}); err != nil {
		t.Fatal(err)
	}
	var index int
	for i, p := range []overlay.Plan{
		plan(1450, "192.0.2.1/32", "2001:db8::1/128"),
		plan(1450, "192.0.2.1/32", "2001:db8::1/128"),
		plan(1400, "192.0.2.7/32", "2001:db8::1/128"),
	} {
		if err := b.Apply(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		l, err := h.LinkByName(overlay.VXLANDevice)
		if err != nil {
			t.Fatal(err)
		}
		want := nl.Link{
			Name: overlay.VXLANDevice, Kind: "vxlan", Alias: "sealane lane, NOT encrypted, managed by sealaned",
			MTU: p.MTU, Up: true, MAC: overlay.VXLANMAC(), Group: overlay.DeviceGroup,
		}
		if diff := cmp.Diff(want, l, cmpopts.IgnoreFields(nl.Link{}, "Index")); diff != "" {
			t.Errorf("plan %d (-want +got):\n%s", i, diff)
		}
		if index != 0 && index != l.Index {
			t.Errorf("plan %d created the device again", i)
		}
		index = l.Index
		if got, err := h.Addresses(index); err != nil || cmp.Diff(p.Addresses, got, cmpopts.EquateComparable(netip.Prefix{})) != "" {
			t.Errorf("plan %d: addresses %v, %v", i, got, err)
		}
		states, err := b.Observe()
		if err != nil || len(states) != 1 || states[0].Index != index || states[0].Encrypted || states[0].MTU != p.MTU {
			t.Errorf("plan %d: observed %+v, %v", i, states, err)
		}
	}
	if out := ns.Run("ip", "-d", "link", "show", overlay.VXLANDevice); !strings.Contains(out, "external") || !strings.Contains(out, "NOARP") {
		t.Errorf("the device is not controlled from outside:\n%s", out)
	}
	for range 2 {
		if err := b.Clean(); err != nil {
			t.Error(err)
		}
	}
	if states, err := b.Observe(); err != nil || len(states) != 0 {
		t.Errorf("left after Clean: %+v, %v", states, err)
	}
}

func TestApplyRefusesOtherPlans(t *testing.T) {
	if err := vxlan.New(nil).Apply(t.Context(), overlay.Plan{Kind: overlay.WireGuard}); !errors.Is(err, vxlan.ErrKind) {
		t.Errorf("error = %v, want ErrKind", err)
	}
}
