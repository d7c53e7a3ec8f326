// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package nodenet_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sealane/sealane/keymgr/nodenet"
)

func prefixes(all ...string) (out []netip.Prefix) {
	for _, s := range all {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func cluster() nodenet.Rules {
	return nodenet.Rules{
		NodeCIDRs: prefixes("10.0.0.0/8", "2001:db8::/32"), PodCIDRs: prefixes("10.244.0.0/16", "fd00:244::/56"),
		ServiceCIDRs: prefixes("10.96.0.0/12"), APIServer: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
	}
}

func TestCheckAddress(t *testing.T) {
	for _, tc := range []struct {
		addr         string
		controlPlane bool
		want         string // in the error; "": none
	}{
		{"10.0.0.2", false, ""},
		{"2001:db8::1", false, ""},
		{"0.0.0.0", false, "global unicast"},
		{"127.0.0.1", false, "global unicast"},
		{"169.254.169.254", false, "global unicast"},
		{"224.0.0.1", false, "global unicast"},
		{"255.255.255.255", false, "global unicast"},
		{"::1", true, "global unicast"},
		{"fe80::1", true, "global unicast"},
		{"ff02::1", true, "global unicast"},
		{"::ffff:10.0.0.2", true, "global unicast"},
		{"203.0.113.53", false, "cluster.nodeCIDRs"},
		{"10.244.3.7", true, "pod range 10.244.0.0/16"},
		{"10.96.0.10", true, "Services 10.96.0.0/12"},
		{"10.0.0.1", false, "node-role.kubernetes.io/control-plane"},
		{"10.0.0.1", true, ""},
	} {
		err := cluster().CheckAddress(netip.MustParseAddr(tc.addr), tc.controlPlane)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s, control plane %t: %v, want %q", tc.addr, tc.controlPlane, err, tc.want)
		}
	}
	if err := (nodenet.Rules{}).CheckAddress(netip.MustParseAddr("203.0.113.53"), false); err != nil {
		t.Errorf("where nothing is known: %v", err)
	}
	if err := (nodenet.Rules{}).CheckAddress(netip.Addr{}, true); err == nil {
		t.Error("the zero address is taken")
	}
}

func TestCheckPodRange(t *testing.T) {
	for text, want := range map[string]string{
		"10.244.3.0/24": "", "fd00:244:0:1::/64": "", "10.244.0.0/16": "",
		"198.51.96.0/19": "outside", "10.0.0.0/8": "outside", "fd00:245::/64": "outside", "10.244.0.0/15": "outside",
	} {
		err := cluster().CheckPodRange(netip.MustParsePrefix(text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	rules := cluster()
	rules.PodCIDRs = nil
	for text, want := range map[string]string{
		"198.51.96.0/19": "", "10.0.0.0/24": "API server's address", "10.100.0.0/24": "Services", "0.0.0.0/2": "Services",
	} {
		err := rules.CheckPodRange(netip.MustParsePrefix(text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("ranges unknown, %s: %v, want %q", text, err, want)
		}
	}
}
