// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/keytest"
	"github.com/sealane/sealane/keymgr/markstore"
	"github.com/sealane/sealane/keymgr/nodenet"
)

// claim makes a node list one more address, in its Node and its statements, and has the
// certificate name it too if the authority does.
func claim(c *keytest.Cluster, n *keytest.Node, addr string, certify bool) {
	n.Live.Addresses = append(slices.Clone(n.Live.Addresses), netip.MustParseAddr(addr))
	n.Input.Endpoints = n.Live.Addresses
	if certify {
		c.Clock.Add(time.Minute)
		c.Certify(n)
	}
}

func wantAddresses(t *testing.T, v *keymgr.Verifier, n *keytest.Node, want ...netip.Addr) {
	t.Helper()
	if got := v.Addresses(n.Live.ID); !slices.Equal(got, want) {
		t.Errorf("node %s holds %v, want %v", n.Live.ID.Name, got, want)
	}
}

func doubts(p keymgr.Peer) (n int) {
	for _, w := range p.Warnings {
		if w.Code == keymgr.WarnAddress {
			n++
		}
	}
	return n
}

func TestAddressesOfANode(t *testing.T) {
	for name, tc := range map[string]struct {
		addr    string
		certify bool
		rules   nodenet.Rules
		own     string
		want    bool
	}{
		"certified":         {addr: "192.0.2.7", certify: true, want: true},
		"not certified":     {addr: "192.0.2.7"},
		"outside":           {addr: "192.0.2.7", certify: true, rules: nodenet.Rules{NodeCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
		"of the API server": {addr: "192.0.2.7", certify: true, rules: nodenet.Rules{APIServer: []netip.Addr{netip.MustParseAddr("192.0.2.7")}}},
		"the reader's own":  {addr: "192.0.2.7", certify: true, own: "192.0.2.7"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			first := s.a.Live.Addresses[0]
			claim(s.Cluster, s.a, tc.addr, tc.certify)
			s.verifier.SetRules(tc.rules)
			if tc.own != "" {
				s.verifier.SetSelf(nil, keymgr.LiveNode{Addresses: []netip.Addr{netip.MustParseAddr(tc.own)}})
			}
			p := mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)
			if (doubts(p) == 0) != tc.want {
				t.Errorf("warnings %v", p.Warnings)
			}
			want := []netip.Addr{first}
			if tc.want {
				want = append(want, netip.MustParseAddr(tc.addr))
			}
			wantAddresses(t, s.verifier, s.a, want...)
		})
	}
}

// TestFirstClaimOfAnAddressIsKept also by a verifier that starts again, whatever the age of
// who comes later, until the Node has another address, is gone, or is not verified.
func TestFirstClaimOfAnAddressIsKept(t *testing.T) {
	c := keytest.NewCluster(t)
	marks := markstore.New(t.TempDir())
	cfg := c.VerifierConfig("self")
	cfg.Marks = marks
	first, thief := c.Node("z", "10.244.1.0/24"), c.Node("a", "10.244.2.0/24")
	contested := first.Live.Addresses[0]
	thief.Live.Created = first.Live.Created.Add(-time.Hour)
	v := c.Open(cfg)
	mustVerify(t, v, first.Sign(), first.Live)
	claim(c, thief, contested.String(), true)
	own, steal := thief.Live.Addresses[0], thief.Sign()
	if p := mustVerify(t, v, steal, thief.Live); doubts(p) != 1 {
		t.Errorf("warnings %v", p.Warnings)
	}
	v = c.Open(cfg)
	if _, err := v.Restore(); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, v, steal, thief.Live)
	wantAddresses(t, v, first, contested)
	wantAddresses(t, v, thief, own)

	// The address passes to the other node in one pass.
	moved := first.Live
	moved.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.8")}
	v.Release([]keymgr.LiveNode{moved, thief.Live})
	mustVerify(t, v, steal, thief.Live)
	wantAddresses(t, v, thief, own, contested)
	wantAddresses(t, v, first)
}

// TestUnverifiedNodeKeepsNoAddressFromAnother: its statement has ended; what it held is its
// own only as long as no living node proves to have it.
func TestUnverifiedNodeKeepsNoAddressFromAnother(t *testing.T) {
	c := keytest.NewCluster(t)
	left, living := c.Node("a", "10.244.1.0/24"), c.Node("z", "10.244.2.0/24")
	v := c.Verifier("self")
	mustVerify(t, v, left.Sign(), left.Live)
	contested, own := left.Live.Addresses[0], living.Live.Addresses[0]
	c.Clock.Add(keymgr.StatementLifetime + 2*keymgr.ClockSkew)
	wantAddresses(t, v, left, contested)
	claim(c, living, contested.String(), true)
	if p := mustVerify(t, v, living.Sign(), living.Live); doubts(p) != 0 {
		t.Errorf("warnings %v", p.Warnings)
	}
	wantAddresses(t, v, living, own, contested)
	wantAddresses(t, v, left)
	if err := v.Forget(left.Live.ID); err != nil {
		t.Fatal(err)
	}
	wantAddresses(t, v, living, own, contested)
}

// TestNothingNewIsClaimedFromDisk: a record of a version that knew nothing of addresses
// gives its node none before the API server says who is older.
func TestNothingNewIsClaimedFromDisk(t *testing.T) {
	c := keytest.NewCluster(t)
	marks := markstore.New(t.TempDir())
	cfg := c.VerifierConfig("self")
	cfg.Marks = marks
	n := c.Node("a", "10.244.1.0/24")
	signed := n.Sign()
	mustVerify(t, c.Open(cfg), signed, n.Live)
	all, err := marks.Load()
	if err != nil || len(all) != 1 || len(all[0].Addresses) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	all[0].Addresses, all[0].Live.Created = nil, time.Time{}
	if err := marks.Save(all[0]); err != nil {
		t.Fatal(err)
	}
	v := c.Open(cfg)
	if _, err := v.Restore(); err != nil {
		t.Fatal(err)
	}
	wantAddresses(t, v, n)
	mustVerify(t, v, signed, n.Live)
	wantAddresses(t, v, n, n.Live.Addresses...)
}

// TestCertificateThatNamesNoAddresses vouches for none.
func TestCertificateThatNamesNoAddresses(t *testing.T) {
	c := keytest.NewCluster(t)
	n := c.Node("a", "10.244.1.0/24")
	live := n.Live
	n.Live.Addresses = nil
	c.Clock.Add(time.Minute)
	c.Certify(n)
	chain := n.Sign().Chain
	cert, err := keymgr.ReadChain(chain)
	if err != nil || !cert.NamesAddresses || len(cert.Addresses) != 0 {
		t.Fatalf("%+v, %v", cert, err)
	}
	v := c.Verifier("self")
	if p := mustVerify(t, v, n.Sign(), live); doubts(p) != 1 {
		t.Errorf("warnings %v", p.Warnings)
	}
	wantAddresses(t, v, n)
}
