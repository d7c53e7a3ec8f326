// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package approval_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/keytest"
)

// TestAddresses: what an order names of the addresses of a Node, and why not the rest. A
// wrong address never keeps the node from a certificate.
func TestAddresses(t *testing.T) {
	own, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	type edit = func(*application)
	rival := func(older, ready, certified bool) edit {
		return func(a *application) {
			b := keymgr.LiveNode{ID: keytest.ID("b"), Created: a.facts.Node.Created.Add(time.Hour)}
			if older {
				b.Created = a.facts.Node.Created.Add(-time.Hour)
			}
			a.facts.Claims = map[netip.Addr][]approval.Claim{other: {
				{Node: *a.facts.Node, Ready: true, Certified: true}, {Node: b, Ready: ready, Certified: certified},
			}}
		}
	}
	for name, tc := range map[string]struct {
		addr string
		says string // "": it is named
		edit edit
	}{
		"a second one":             {"192.0.2.2", "", nil},
		"another family":           {"2001:db8::1", "", nil},
		"loopback":                 {"127.0.0.1", "global unicast", nil},
		"link-local":               {"fe80::1", "global unicast", nil},
		"multicast":                {"239.0.0.1", "global unicast", nil},
		"unspecified":              {"0.0.0.0", "global unicast", nil},
		"outside of nodes' ranges": {"203.0.113.53", "cluster.nodeCIDRs", func(a *application) { a.policy.Rules.NodeCIDRs = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} }},
		"in its own pod range":     {"10.244.1.7", "10.244.1.0/24", nil},
		"in another's pod range":   {"10.244.9.7", "10.244.0.0/16", func(a *application) { a.policy.Rules.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")} }},
		"of a Service": {"10.96.0.10", "Services", func(a *application) {
			a.policy.Rules.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}
		}},
		"of the API server": {"192.0.2.2", "control-plane", func(a *application) { a.policy.Rules.APIServer = []netip.Addr{other} }},
		"of its own API server": {"192.0.2.2", "", func(a *application) {
			a.policy.Rules.APIServer, a.facts.Node.ControlPlane = []netip.Addr{other}, true
		}},
		"of an older node":                 {"192.0.2.2", "node b/", rival(true, true, false)},
		"of a younger node":                {"192.0.2.2", "", rival(false, true, false)},
		"certified to a younger node":      {"192.0.2.2", "node b/", rival(false, false, true)},
		"of an older one that nobody runs": {"192.0.2.2", "", rival(true, false, false)},
		"of an older one that is off":      {"192.0.2.2", "node b/", rival(true, false, true)},
	} {
		t.Run(name, func(t *testing.T) {
			a := newApplication(t)
			a.facts.Node.Addresses = []netip.Addr{own, own, netip.MustParseAddr(tc.addr)}
			if tc.edit != nil {
				tc.edit(a)
			}
			a.sign()
			order, err := approval.Approve(a.request, a.policy, a.facts)
			if err != nil {
				t.Fatal(err)
			}
			want := "[192.0.2.1]"
			if tc.says == "" {
				want = fmt.Sprintf("[192.0.2.1 %s]", tc.addr)
			}
			if got := fmt.Sprint(order.Addresses()); got != want {
				t.Errorf("named %s, want %s", got, want)
			}
			refused := order.RefusedAddresses()
			if (len(refused) == 1) != (tc.says != "") || len(refused) == 1 && !strings.Contains(refused[0].Reason, tc.says) {
				t.Errorf("refused %+v, want %q", refused, tc.says)
			}
		})
	}
}

// TestTooManyAddresses: the first eight are named, and the refusal does not grow with what
// a kubelet writes.
func TestTooManyAddresses(t *testing.T) {
	a := newApplication(t)
	a.facts.Node.Addresses = []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	for len(a.facts.Node.Addresses) < 60000 {
		a.facts.Node.Addresses = append(a.facts.Node.Addresses, a.facts.Node.Addresses[len(a.facts.Node.Addresses)-1].Next())
	}
	a.sign()
	order, err := approval.Approve(a.request, a.policy, a.facts)
	if err != nil {
		t.Fatal(err)
	}
	refused := order.RefusedAddresses()
	if len(order.Addresses()) != 8 || len(refused) != 1 || !strings.Contains(refused[0].Reason, "60000") {
		t.Errorf("%d named, refused %+v", len(order.Addresses()), refused)
	}
}
