// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package podnet

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/sealane/sealane/cni/ipam"
)

func TestNames(t *testing.T) {
	o := ipam.Owner{ContainerID: "c", IfName: "eth0"}
	if got, want := HostName(o), "slp4ae00ea5d4f"; got != want {
		t.Errorf("host name = %q, want %q", got, want)
	}
	if len(HostName(o)) > 15 || HostName(o) == HostName(ipam.Owner{ContainerID: "c", IfName: "eth1"}) {
		t.Errorf("host name %q is too long or not unique", HostName(o))
	}
}

func TestPodMAC(t *testing.T) {
	for addresses, want := range map[string]string{
		"10.1.2.3":         "0a:58:0a:01:02:03",
		"fd00::2 10.1.2.3": "0a:58:0a:01:02:03",
		"10.1.2.3 fd00::2": "0a:58:0a:01:02:03",
		"fd00::2":          "0a:58:20:53:7f:b1",
		"fd00::3":          "0a:58:72:d8:c0:ed",
	} {
		var all []netip.Addr
		for text := range strings.FieldsSeq(addresses) {
			all = append(all, netip.MustParseAddr(text))
		}
		if got := PodMAC(all).String(); got != want {
			t.Errorf("PodMAC(%s) = %s, want %s", addresses, got, want)
		}
	}
}

func TestSpecIsChecked(t *testing.T) {
	good := Spec{
		Netns: "/run/netns/1", IfName: "eth0", HostIfName: "slp1", MTU: 1280,
		Addresses: []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd00::2")},
	}
	if err := good.validate(); err != nil {
		t.Errorf("good: %v", err)
	}
	for name, tc := range map[string]struct {
		spoil func(*Spec)
		says  string
	}{
		"no namespace":   {func(s *Spec) { s.Netns = "" }, `netns ""`},
		"no device":      {func(s *Spec) { s.IfName = "" }, `device ""`},
		"no address":     {func(s *Spec) { s.Addresses = nil }, "no address"},
		"zero address":   {func(s *Spec) { s.Addresses[1] = netip.Addr{} }, "address 1"},
		"mapped address": {func(s *Spec) { s.Addresses[0] = netip.MustParseAddr("::ffff:10.1.2.3") }, "::ffff:10.1.2.3"},
		"family twice":   {func(s *Spec) { s.Addresses[1] = netip.MustParseAddr("10.1.2.4") }, "one per family"},
		"MTU":            {func(s *Spec) { s.MTU = 67 }, "MTU is 67"},
		"MTU of IPv6":    {func(s *Spec) { s.MTU = 1279 }, "IPv6 needs at least 1280"},
		"host device":    {func(s *Spec) { s.HostIfName = "eth0" }, `host device is "eth0"`},
	} {
		s := good
		s.Addresses = append([]netip.Addr(nil), good.Addresses...)
		tc.spoil(&s)
		if err := s.validate(); !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v; want ErrSpec and %q", name, err, tc.says)
		}
	}
}
