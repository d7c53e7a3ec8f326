// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package overlay

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay/overlaytest"
)

// TestWithdrawnKeyThatAnotherClaims: a node that claims a key which another has withdrawn
// takes at most that key from it, whatever their names, and not its lane.
func TestWithdrawnKeyThatAnotherClaims(t *testing.T) {
	ca := overlaytest.NewAuthority(t)
	key := func(node string, gen uint64, owner string) keymgr.PeerKey {
		return ca.Verify(t, overlaytest.Key{
			ID: keymgr.NodeID{Name: node, UID: "uid-" + node}, Generation: gen, BasePort: DefaultBasePort, Public: overlaytest.PublicKey(t, owner),
		})[0]
	}
	node := func(name, last string, keys, withdrawn []keymgr.PeerKey) Peer {
		p := Peer{
			ID: keymgr.NodeID{Name: name, UID: "uid-" + name}, Keys: keys, Withdrawn: withdrawn,
			Endpoint: netip.MustParseAddr("192.0.2." + last), PodCIDRs: prefixes("10.0." + last + ".0/24"),
		}
		for _, k := range slices.Concat(withdrawn, keys) {
			p.Pairs = append(p.Pairs, rotation.WantedPair{Pair: rotation.Pair{Own: 1, Peer: k.Generation()}})
		}
		p.Active = p.Pairs[0].Pair
		return p
	}
	cfg := Config{
		Kind: WireGuard, Self: keymgr.NodeID{Name: "self", UID: "1"}, Generations: []uint64{1}, UnderlayMTU: 1500,
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, PodCIDRs: prefixes("10.0.1.0/24"),
	}
	for name, tc := range map[string]struct {
		thief    func(name string) Peer
		drained  bool // the withdrawn key's tunnel peer stays
		reported bool
	}{
		"nobody does": {func(name string) Peer { return node(name, "3", []keymgr.PeerKey{key(name, 3, "own")}, nil) }, true, false},
		"listed":      {func(name string) Peer { return node(name, "3", []keymgr.PeerKey{key(name, 3, "b1")}, nil) }, false, true},
		"listed, whose node is refused": {func(name string) Peer {
			return node(name, "1", []keymgr.PeerKey{key(name, 3, "b1")}, nil)
		}, false, true},
	} {
		for _, thief := range []string{"a", "c"} { // before and after b
			b := node("b", "2", []keymgr.PeerKey{key("b", 2, "b2")}, []keymgr.PeerKey{key("b", 1, "b1")})
			plan, err := Compute(cfg, []Peer{b, tc.thief(thief)})
			if err != nil {
				t.Fatal(err)
			}
			var lanes []uint64
			for _, l := range plan.Tunnels {
				for _, p := range l.Peers {
					if p.ID == b.ID {
						lanes = append(lanes, p.Key.Generation())
					}
				}
			}
			slices.Sort(lanes)
			if want := map[bool][]uint64{true: {1, 2}, false: {2}}[tc.drained]; !slices.Equal(lanes, want) {
				t.Errorf("%s by %s: lanes of b with %v, want %v", name, thief, lanes, want)
			}
			told := slices.ContainsFunc(plan.Refused, func(r Refusal) bool {
				return r.ID == b.ID && !r.Whole && strings.Contains(r.Reason, "withdrawn key of generation 1")
			})
			if told != tc.reported {
				t.Errorf("%s by %s: refused %v", name, thief, plan.Refused)
			}
			if i := slices.IndexFunc(plan.Routes, func(r Route) bool { return r.Dst == b.PodCIDRs[0] && !r.Unreachable }); i < 0 {
				t.Errorf("%s by %s: no route to b", name, thief)
			}
		}
	}
}

// TestKeyWithdrawnByTwo: the first of the two keeps it.
func TestKeyWithdrawnByTwo(t *testing.T) {
	ca := overlaytest.NewAuthority(t)
	verify := func(id keymgr.NodeID, gen uint64, owner string) []keymgr.PeerKey {
		return ca.Verify(t, overlaytest.Key{ID: id, Generation: gen, BasePort: DefaultBasePort, Public: overlaytest.PublicKey(t, owner)})
	}
	var peers []Peer
	for _, name := range []string{"b", "a"} {
		id := keymgr.NodeID{Name: name, UID: "uid-" + name}
		peers = append(peers, Peer{
			ID: id, Keys: verify(id, 2, name), Withdrawn: verify(id, 1, "shared"), Pairs: []rotation.WantedPair{{Pair: rotation.Pair{Own: 1, Peer: 2}}},
			Endpoint: netip.MustParseAddr(map[string]string{"a": "192.0.2.2", "b": "192.0.2.3"}[name]),
		})
	}
	cfg := Config{
		Kind: WireGuard, Self: keymgr.NodeID{Name: "self", UID: "1"}, Generations: []uint64{1}, UnderlayMTU: 1500,
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
	}
	plan, err := Compute(cfg, peers)
	if err != nil || len(plan.Refused) != 1 || plan.Refused[0].Whole || plan.Refused[0].ID.Name != "b" {
		t.Errorf("refused %v, %v; want the withdrawn key of b alone", plan.Refused, err)
	}
}
