// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package trust

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/keytest"
)

// TestRefusedAddressIsTold once, and only if the certificate for it does not come.
func TestRefusedAddressIsTold(t *testing.T) {
	for name, certified := range map[string]bool{"certified soon": true, "never": false} {
		t.Run(name, func(t *testing.T) {
			c := keytest.NewCluster(t)
			told := &events{}
			j := newPeerVerifier(c.Verifier("self"), told, slog.New(slog.DiscardHandler), nil)
			j.clock = c.Clock.Now
			a := c.Node("a", "10.244.1.0/24")
			a.Live.Addresses = append(slices.Clone(a.Live.Addresses), netip.MustParseAddr("203.0.113.53"))
			a.Input.Endpoints = a.Live.Addresses
			pass := func(want int) {
				t.Helper()
				snap := cluster.Snapshot{
					Nodes: []kube.Node{{
						Name: a.Live.ID.Name, UID: a.Live.ID.UID, PodCIDRs: a.Live.PodCIDRs, Addresses: a.Live.Addresses, Created: a.Live.Created,
					}},
					NodeKeys: map[string]keymgr.Signed{"a": a.Sign()},
				}
				got := j.verify(t.Context(), snap, "self")[0]
				if got.Err != nil || len(got.Addresses) != want {
					t.Errorf("%v, addresses %v, want %d", got.Err, got.Addresses, want)
				}
			}
			pass(1)
			want := 1
			if certified {
				c.Clock.Add(time.Second)
				c.Certify(a)
				want = 2
			}
			for range 3 {
				c.Clock.Add(overtakenFor)
				pass(want)
			}
			refused := j.counts().refusedAddresses
			if len(refused) != 2-want || len(*told) != 2-want {
				t.Fatalf("counted %+v, told %+v", refused, *told)
			}
			if !certified && (refused[0].Count != 1 || (*told)[0].Reason != "NodeAddressRefused") {
				t.Errorf("counted %+v, told %+v", refused, *told)
			}
		})
	}
}

// TestOlderOfTwoThatAreMetAtOnce has the address, whatever their names.
func TestOlderOfTwoThatAreMetAtOnce(t *testing.T) {
	c := keytest.NewCluster(t)
	j := newPeerVerifier(c.Verifier("self"), &events{}, slog.New(slog.DiscardHandler), nil)
	j.clock = c.Clock.Now
	old, young := c.Node("z", "10.244.1.0/24"), c.Node("a", "10.244.2.0/24")
	young.Live.Created = old.Live.Created.Add(time.Second)
	young.Live.Addresses = append(slices.Clone(young.Live.Addresses), old.Live.Addresses[0])
	young.Input.Endpoints = young.Live.Addresses
	c.Clock.Add(time.Minute)
	c.Certify(young) // by an authority that did not know better
	snap := cluster.Snapshot{NodeKeys: map[string]keymgr.Signed{"z": old.Sign(), "a": young.Sign()}}
	for _, n := range []*keytest.Node{young, old} {
		snap.Nodes = append(snap.Nodes, kube.Node{
			Name: n.Live.ID.Name, UID: n.Live.ID.UID, PodCIDRs: n.Live.PodCIDRs, Addresses: n.Live.Addresses, Created: n.Live.Created,
		})
	}
	all := j.verify(t.Context(), snap, "self")
	if !slices.Equal(all[0].Addresses, young.Live.Addresses[:1]) || !slices.Equal(all[1].Addresses, old.Live.Addresses) {
		t.Errorf("young %v, old %v", all[0].Addresses, all[1].Addresses)
	}
}

// TestCertificateForAnotherAddress is asked for at once, once for each change, and not
// more often than rivalPause for changes that others make.
func TestCertificateForAnotherAddress(t *testing.T) {
	k := newCourt(t)
	k.keeper.cfg.Cluster = &office{k: k}
	k.keeper.clock = k.c.Clock.Now
	k.snap.Bundle = k.c.Authority.Bundle()
	check := func(when, want string) {
		t.Helper()
		k.pass()
		if why, _ := k.keeper.needsCertificate(k.keeper.want); why != want {
			t.Errorf("%s: %q, want %q", when, why, want)
		}
	}
	renew := func() {
		t.Helper()
		if err := k.keeper.refresh(t.Context(), k.keeper.want); err != nil {
			t.Fatal(err)
		}
	}
	k.snap.Nodes[0].Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	check("at first", identity.NeedFirst)
	renew()
	check("later", "")
	k.snap.Nodes[0].Addresses = append(k.snap.Nodes[0].Addresses, netip.MustParseAddr("2001:db8::1"))
	check("another family", identity.NeedAddresses)
	renew()
	check("named", "")
	k.snap.Nodes[0].Addresses = append(k.snap.Nodes[0].Addresses, netip.MustParseAddr("127.0.0.1")) // which no authority names
	check("a bad one", identity.NeedAddresses)
	renew()
	check("left out", "")
	k.snap.Nodes[1].Addresses = append(slices.Clone(k.snap.Nodes[1].Addresses), netip.MustParseAddr("127.0.0.1"))
	check("a rival comes", "")
	k.c.Clock.Add(rivalPause)
	check("a rival is there", identity.NeedAddresses)
	renew()
	check("left out again", "")
	k.snap.Nodes[0].ControlPlane = true
	check("a control plane", identity.NeedAddresses)
}
