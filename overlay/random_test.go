// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package overlay

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay/overlaytest"
)

// randomCluster makes peers from a small stock of names, ranges and addresses, so that they
// often contradict each other.
func randomCluster(t *testing.T, rng *rand.Rand, keys map[string][]keymgr.PeerKey) (Config, []Peer) {
	t.Helper()
	cfg := Config{
		Kind: WireGuard, AllowPlaintext: true, Self: keymgr.NodeID{Name: "self", UID: "self"},
		Generations: []uint64{1 + rng.Uint64N(4)}, UnderlayMTU: 1500,
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		PodCIDRs:  prefixes("10.0.1.0/24", "fd00:0:0:1::/64"),
	}
	if rng.IntN(2) == 0 {
		cfg.Kind = VXLAN
	}
	if rng.IntN(2) == 0 {
		cfg.Generations = append(cfg.Generations, cfg.Generations[0]+1)
	}
	if rng.IntN(3) > 0 {
		cfg.ClusterCIDRs = prefixes("10.0.0.0/16", "fd00::/48")
	}
	var peers []Peer
	for range rng.IntN(8) {
		n := 1 + rng.IntN(6)
		p := Peer{ID: keymgr.NodeID{Name: fmt.Sprintf("n%d", n), UID: fmt.Sprintf("u%d", rng.IntN(6))}}
		p.Active = rotation.Pair{Own: rng.Uint64N(4), Peer: rng.Uint64N(4)}
		if rng.IntN(4) > 0 {
			p.Keys = keys[fmt.Sprint(p.ID)]
			combine(cfg, &p)
			rng.Shuffle(len(p.Pairs), func(i, j int) {
				p.Pairs[i], p.Pairs[j] = p.Pairs[j], p.Pairs[i]
			})
			p.Pairs = p.Pairs[:rng.IntN(len(p.Pairs)+1)]
		}
		if rng.IntN(8) > 0 {
			p.Endpoint = netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})
		}
		for range rng.IntN(3) {
			p.Addresses = append(p.Addresses, netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + rng.IntN(8))}))
		}
		for range rng.IntN(3) {
			p.PodCIDRs = append(p.PodCIDRs, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(rng.IntN(8)), 0}), 22+rng.IntN(3)))
		}
		peers = append(peers, p)
	}
	return cfg, peers
}

func randomKeys(t *testing.T) map[string][]keymgr.PeerKey {
	t.Helper()
	ca, keys := overlaytest.NewAuthority(t), map[string][]keymgr.PeerKey{}
	for n := range 8 {
		for u := range 6 {
			id := keymgr.NodeID{Name: fmt.Sprintf("n%d", n), UID: fmt.Sprintf("u%d", u)}
			k := []overlaytest.Key{{ID: id, Generation: uint64(1 + u%2), BasePort: 1000, Public: overlaytest.PublicKey(t, id.UID)}}
			if n%2 == 0 {
				k = append(k, overlaytest.Key{
					ID: id, Generation: uint64(2 + u%2), BasePort: 1000, Public: overlaytest.PublicKey(t, id.UID+"next"),
				})
			}
			keys[fmt.Sprint(id)] = ca.Verify(t, k...)
		}
	}
	return keys
}

func TestComputeOfRandomClusters(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	keys := randomKeys(t)
	for i := range 3000 {
		cfg, peers := randomCluster(t, rng, keys)
		plan, err := Compute(cfg, peers)
		if err != nil {
			t.Fatal(err)
		}
		for _, check := range []func(Config, []Peer, Plan) error{
			sameInAnyOrder(rng), oneOwner, refusesOrTunnels, neverLoops, forwardAgrees, oneEntryEach,
		} {
			if err := check(cfg, peers, plan); err != nil {
				t.Fatalf("cluster %d: %v\n%+v\n%s", i, err, peers, plan)
			}
		}
	}
}

// sameInAnyOrder: neither the order of peers nor that of their values matters. Two peers
// with one identity are left out, because nothing says which of them is meant.
func sameInAnyOrder(rng *rand.Rand) func(Config, []Peer, Plan) error {
	return func(cfg Config, peers []Peer, want Plan) error {
		for i, p := range peers {
			if slices.ContainsFunc(peers[:i], func(o Peer) bool { return o.ID == p.ID }) {
				return nil
			}
		}
		peers = slices.Clone(peers)
		rng.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
		slices.Reverse(cfg.PodCIDRs)
		slices.Reverse(cfg.Generations)
		if got, err := Compute(cfg, peers); err != nil || !got.Equal(want) {
			return fmt.Errorf("another order gives another plan (%v):\n%s", err, got)
		}
		return nil
	}
}

// oneOwner: on a device an address belongs to one peer at most, and never to this node.
func oneOwner(cfg Config, _ []Peer, plan Plan) error {
	for _, l := range plan.Tunnels {
		var seen []netip.Prefix
		for _, p := range l.Peers {
			for _, a := range p.AllowedIPs {
				if o, ok := overlapping(slices.Concat(seen, cfg.PodCIDRs, plan.Addresses), a); ok {
					return fmt.Errorf("%s: %s and %s overlap", l.Device, o, a)
				}
			}
			seen = append(seen, p.AllowedIPs...)
		}
	}
	return nil
}

// lookup does what the kernel does with a table: the longest prefix wins, then the lowest
// metric.
func lookup(routes []Route, table int, a netip.Addr) (Route, bool) {
	var best Route
	for _, r := range routes {
		if r.Table != table || !r.Dst.Contains(a) {
			continue
		}
		longer := !best.Dst.IsValid() || r.Dst.Bits() > best.Dst.Bits()
		if longer || r.Dst.Bits() == best.Dst.Bits() && r.Metric < best.Metric {
			best = r
		}
	}
	return best, best.Dst.IsValid()
}

func addresses() []netip.Addr {
	var out []netip.Addr
	for n := range byte(9) {
		out = append(out, netip.AddrFrom4([4]byte{10, 0, n, 7}), netip.AddrFrom4([4]byte{192, 0, 2, n}))
	}
	return out
}

// refusesOrTunnels: a packet to an address that is known as a pod's or a peer's goes into a
// lane that accepts it, or nowhere.
func refusesOrTunnels(cfg Config, _ []Peer, plan Plan) error {
	for _, a := range addresses() {
		_, pod := containing(plan.Masquerade.Cluster, a)
		table := 0
		if !pod {
			table = RouteTable
		}
		r, found := lookup(plan.Routes, table, a)
		if pod && !found {
			return fmt.Errorf("%s is a pod's and has no route", a)
		}
		if !found || r.Unreachable || cfg.Kind == VXLAN {
			continue
		}
		l, _ := plan.Tunnel(r.Device)
		takes := func(p TunnelPeer) bool { _, ok := containing(p.AllowedIPs, a); return ok }
		if !slices.ContainsFunc(l.Peers, takes) {
			return fmt.Errorf("%s is sent to %s, where no peer takes it", a, r.Device)
		}
		// When the device goes, its routes go too.
		rest := slices.DeleteFunc(slices.Clone(plan.Routes), func(o Route) bool { return o.Device == r.Device })
		if behind, ok := lookup(rest, table, a); !ok || !behind.Unreachable {
			return fmt.Errorf("%s without its lane goes to %v, %v", a, behind, ok)
		}
	}
	return nil
}

// neverLoops: the main table, which routes the lanes' own packets, sends no endpoint into a
// lane.
func neverLoops(_ Config, _ []Peer, plan Plan) error {
	for _, l := range plan.Tunnels {
		for _, p := range l.Peers {
			if r, ok := lookup(plan.Routes, 0, p.Endpoint.Addr()); ok {
				return fmt.Errorf("endpoint %s has the route %s", p.Endpoint, r)
			}
		}
	}
	return nil
}

// forwardAgrees: the data path's table and the kernel's routes agree.
func forwardAgrees(cfg Config, _ []Peer, plan Plan) error {
	for _, a := range addresses() {
		var best Forward
		for _, f := range plan.Forward {
			if f.Prefix.Contains(a) && (!best.Prefix.IsValid() || f.Prefix.Bits() > best.Prefix.Bits()) {
				best = f
			}
		}
		table := 0
		if best.Kind == NodeRemote {
			table = RouteTable
		}
		if _, own := containing(slices.Concat(cfg.PodCIDRs, plan.Addresses), a); own {
			if best.Kind != PodLocal && best.Kind != NodeLocal {
				return fmt.Errorf("own address %s: %s", a, best)
			}
			continue
		}
		if r, _ := lookup(plan.Routes, table, a); r.Device != best.Device {
			return fmt.Errorf("%s: route %s, but %s", a, r, best)
		}
	}
	return nil
}

// oneEntryEach: tables that the kernel keys by these fields get no key twice.
func oneEntryEach(_ Config, _ []Peer, plan Plan) error {
	seen := map[string]bool{}
	add := func(key string) error {
		if seen[key] {
			return fmt.Errorf("twice: %s", key)
		}
		seen[key] = true
		return nil
	}
	for _, f := range plan.Forward {
		if err := add("forward " + f.Prefix.String()); err != nil {
			return err
		}
	}
	for _, r := range plan.Routes {
		if err := add(fmt.Sprint("route ", r.Dst, r.Table, r.Metric)); err != nil {
			return err
		}
	}
	for _, l := range plan.Tunnels {
		for _, p := range l.Peers {
			if err := add(fmt.Sprint("key ", l.Device, p.Key.Key())); err != nil {
				return err
			}
		}
	}
	return nil
}

// BenchmarkCompute uses clusters of the size that the project is made for.
func BenchmarkCompute(b *testing.B) {
	ca := overlaytest.NewAuthority(b)
	for _, kind := range []Kind{VXLAN, WireGuard} {
		b.Run(string(kind), func(b *testing.B) {
			cfg := Config{
				Kind: kind, AllowPlaintext: true, Self: keymgr.NodeID{Name: "self", UID: "self"}, UnderlayMTU: 1500,
				Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, PodCIDRs: prefixes("10.255.0.0/24"),
				ClusterCIDRs: prefixes("10.0.0.0/8"), Generations: []uint64{1},
			}
			peers := crowd(b, ca, kind)
			for b.Loop() {
				plan, err := Compute(cfg, peers)
				if err != nil || len(plan.Refused) > 0 {
					b.Fatal(err, plan.Refused)
				}
			}
		})
	}
}

func crowd(b *testing.B, ca *overlaytest.Authority, kind Kind) []Peer {
	b.Helper()
	var peers []Peer
	for n := range 5000 {
		hi, lo := byte(n>>8), byte(n)
		a := netip.AddrFrom4([4]byte{172, 16, hi, lo})
		p := Peer{
			ID: keymgr.NodeID{Name: fmt.Sprint("n", n), UID: fmt.Sprint(n)}, Endpoint: a, Addresses: []netip.Addr{a},
			PodCIDRs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, hi, lo, 0}), 24)},
		}
		if kind == WireGuard {
			p.Pairs = []rotation.WantedPair{{Pair: rotation.Pair{Own: 1, Peer: 2}, Preshared: true}}
			p.Keys = ca.Verify(b, overlaytest.Key{ID: p.ID, Generation: 2, Public: overlaytest.PublicKey(b, p.ID.Name), BasePort: DefaultBasePort})
		}
		peers = append(peers, p)
	}
	return peers
}
