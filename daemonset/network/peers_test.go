// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package network

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
)

func TestSameFamily(t *testing.T) {
	addrs := func(s ...string) (all []netip.Addr) {
		for _, a := range s {
			all = append(all, netip.MustParseAddr(a))
		}
		return all
	}
	for name, tc := range map[string]struct {
		from, own []netip.Addr
		want      string
	}{
		"both":      {addrs("fd00::2", "192.0.2.2"), addrs("192.0.2.1", "fd00::1"), "192.0.2.2"},
		"only IPv6": {addrs("fd00::2"), addrs("192.0.2.1", "fd00::1"), "fd00::2"},
		"none":      {addrs("fd00::2"), addrs("192.0.2.1"), "invalid IP"},
	} {
		if got := sameFamily(tc.from, tc.own).String(); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

func TestFindSelf(t *testing.T) {
	cidr, addr := netip.MustParsePrefix("10.0.0.0/24"), netip.MustParseAddr("192.0.2.1")
	for name, tc := range map[string]struct {
		node kube.Node
		want string
	}{
		"good":       {kube.Node{Name: "a", PodCIDRs: []netip.Prefix{cidr}, Addresses: []netip.Addr{addr}}, ""},
		"other name": {kube.Node{Name: "b"}, "--node-name"},
		"no range":   {kube.Node{Name: "a", Addresses: []netip.Addr{addr}}, "--allocate-node-cidrs"},
		"no address": {kube.Node{Name: "a", PodCIDRs: []netip.Prefix{cidr}}, "InternalIP"},
	} {
		_, err := findSelf(cluster.Snapshot{Nodes: []kube.Node{tc.node}}, "a")
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}
