// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package network

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/readiness"
	"github.com/sealane/sealane/daemonset/trust"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/keytest"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay"
)

// silent takes Events that nobody reads.
type silent struct{}

func (silent) Event(context.Context, kube.EventSpec) {}

// reader is node n2, which plans by what it hears of the others.
type reader struct {
	t      *testing.T
	c      *keytest.Cluster
	keeper *trust.Keeper
	self   kube.Node
	snap   cluster.Snapshot
}

func newReader(t *testing.T) *reader {
	t.Helper()
	r := &reader{t: t, c: keytest.NewCluster(t)}
	r.c.Clock.Add(time.Since(r.c.Clock.Now())) // the keeper has the clock of the machine
	own := r.c.Node("n2", "10.244.2.0/24")
	r.self = nodeOf(own.Live)
	var err error
	r.keeper, err = trust.New(trust.Config{
		Dir: t.TempDir(), Node: own.Live.ID, TrustDomain: keytest.TrustDomain, ExpiredGrace: keymgr.DefaultGrace, PostQuantum: keymgr.PSKOff,
		Events: silent{}, State: readiness.New(readiness.Keys), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.snap = cluster.Snapshot{Nodes: []kube.Node{r.self}, NodeKeys: map[string]keymgr.Signed{}, Bundle: r.c.Authority.Bundle()}
	return r
}

func nodeOf(live keymgr.LiveNode) kube.Node {
	return kube.Node{
		Name: live.ID.Name, UID: live.ID.UID, PodCIDRs: live.PodCIDRs, Addresses: live.Addresses, Created: live.Created, ControlPlane: live.ControlPlane,
	}
}

// hear makes the API server have a node and what it says.
func (r *reader) hear(n *keytest.Node) {
	r.snap.Nodes = append(r.snap.Nodes, nodeOf(n.Live))
	r.snap.NodeKeys[n.Live.ID.Name] = n.Sign()
}

// plan returns what n2 wants of its host.
func (r *reader) plan() overlay.Plan {
	r.t.Helper()
	if err := r.keeper.Learn(r.self, r.snap); err != nil {
		r.t.Fatal(err)
	}
	d := rotation.Decision{Peers: map[string]rotation.PeerDecision{}}
	all := r.keeper.Verify(r.t.Context(), r.snap, r.self.Name)
	for _, j := range all {
		if len(j.Peer.Keys) > 0 {
			pair := rotation.Pair{Own: 1, Peer: j.Peer.Keys[0].Generation()}
			d.Peers[j.Node.UID] = rotation.PeerDecision{Install: []rotation.WantedPair{{Pair: pair}}, Active: pair}
		}
	}
	plan, err := overlay.Compute(overlay.Config{
		Kind: overlay.WireGuard, Self: r.self.ID(), Generations: []uint64{1}, Addresses: r.self.Addresses, PodCIDRs: r.self.PodCIDRs,
		ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, UnderlayMTU: 1500,
	}, overlayPeers(all, r.self, d))
	if err != nil {
		r.t.Fatal(err)
	}
	return plan
}

// certified counts the addresses of the plan's peers.
func certified(plan overlay.Plan) int { return len(plan.Masquerade.Peers) }

// TestKubeletClaimsAddresses: root on node a, the oldest and the first by name, adds
// InternalIPs to its own Node: one of the outside, one of n3 and one of n2. Its certificate
// and its statements are good.
func TestKubeletClaimsAddresses(t *testing.T) {
	r := newReader(t)
	evil, victim := r.c.Node("a", "10.244.1.0/24"), r.c.Node("n3", "10.244.3.0/24")
	evil.Live.Created = evil.Live.Created.Add(-time.Hour)
	r.hear(victim)
	r.hear(evil)
	honest := r.plan()
	if certified(honest) != 2 {
		t.Fatalf("%s", honest)
	}
	evil.Live.Addresses = append(evil.Live.Addresses, netip.MustParseAddr("203.0.113.53"), victim.Live.Addresses[0], r.self.Addresses[0])
	evil.Input.Endpoints = evil.Live.Addresses
	r.snap.Nodes = r.snap.Nodes[:2]
	r.hear(evil)
	if got := r.plan().String(); got != honest.String() {
		t.Errorf("before:\n%s\nafter:\n%s", honest, got)
	}
}

// TestRandomWritesOfAKubelet: whatever a kubelet writes into the status of its Node, and
// whatever that node's statement says of it, the plan of another node is that without
// these writes, less addresses of that node that it has taken back.
func TestRandomWritesOfAKubelet(t *testing.T) {
	r := newReader(t)
	evil, victim := r.c.Node("a", "10.244.1.0/24"), r.c.Node("n3", "10.244.3.0/24")
	evil.Live.Created = evil.Live.Created.Add(-time.Hour)
	r.hear(victim)
	r.hear(evil)
	own := evil.Live.Addresses[0]
	with := r.plan()
	rng := rand.New(rand.NewPCG(1, 2))
	stock := []netip.Addr{own, victim.Live.Addresses[0], r.self.Addresses[0], netip.MustParseAddr("10.244.3.9"), netip.MustParseAddr("10.96.0.10")}
	for range 200 {
		claimed := []netip.Addr{netip.MustParseAddr("198.51.100.7")} // where its lanes go
		for range rng.IntN(20) {
			a := netip.AddrFrom4([4]byte{byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32())})
			if rng.IntN(2) == 0 {
				a = stock[rng.IntN(len(stock))]
			}
			claimed = append(claimed, a)
		}
		evil.Live.Addresses = claimed
		r.snap.Nodes = append(r.snap.Nodes[:2], nodeOf(evil.Live))
		if rng.IntN(2) == 0 { // else its agent has not said so yet
			evil.Input.Endpoints = claimed[:min(len(claimed), 8)]
			r.snap.NodeKeys["a"] = evil.Sign()
		}
		want := with
		if !slices.Contains(claimed, own) || !slices.Contains(evil.Input.Endpoints, own) {
			want = without(with, netip.PrefixFrom(own, 32))
		}
		if got := r.plan(); endpointless(got) != endpointless(want) {
			t.Fatalf("claimed %s, said %s: want\n%s\ngot\n%s", claimed, evil.Input.Endpoints, want, got)
		}
	}
}

// without returns a plan without one node address.
func without(plan overlay.Plan, a netip.Prefix) overlay.Plan {
	plan.Routes = slices.DeleteFunc(slices.Clone(plan.Routes), func(r overlay.Route) bool { return r.Dst == a })
	plan.Forward = slices.DeleteFunc(slices.Clone(plan.Forward), func(f overlay.Forward) bool { return f.Prefix == a })
	plan.Masquerade.Peers = slices.DeleteFunc(slices.Clone(plan.Masquerade.Peers), func(p netip.Prefix) bool { return p == a })
	plan.Tunnels = slices.Clone(plan.Tunnels)
	for i, tunnel := range plan.Tunnels {
		plan.Tunnels[i].Peers = slices.Clone(tunnel.Peers)
		for j, p := range tunnel.Peers {
			plan.Tunnels[i].Peers[j].AllowedIPs = slices.DeleteFunc(slices.Clone(p.AllowedIPs), func(p netip.Prefix) bool { return p == a })
		}
	}
	return plan
}

// endpointless shows a plan but for where node a's lanes go, which is a's own affair.
func endpointless(plan overlay.Plan) string {
	plan.Tunnels = slices.Clone(plan.Tunnels)
	for i, tunnel := range plan.Tunnels {
		plan.Tunnels[i].Peers = slices.Clone(tunnel.Peers)
		for j, p := range tunnel.Peers {
			if p.ID.Name == "a" {
				plan.Tunnels[i].Peers[j].Endpoint = netip.AddrPort{}
			}
		}
	}
	return plan.String()
}

// TestLeftoverNodeTakesNothing: the machine of node a was renamed to n3, and nobody has
// deleted the older Node, which still lists the machine's address.
func TestLeftoverNodeTakesNothing(t *testing.T) {
	r := newReader(t)
	living := r.c.Node("n3", "10.244.3.0/24")
	r.hear(living)
	alone := r.plan()
	left := keymgr.LiveNode{
		ID: keytest.ID("a"), Addresses: living.Live.Addresses, Created: living.Live.Created.Add(-time.Hour),
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
	}
	r.snap.Nodes = append(r.snap.Nodes, nodeOf(left))
	got := r.plan()
	if len(got.Refused) > 0 || !slices.Equal(got.Routes, alone.Routes) || !slices.EqualFunc(got.Tunnels[1].Peers, alone.Tunnels[1].Peers, samePeer) {
		t.Errorf("before:\n%s\nafter:\n%s", alone, got)
	}
	refused := overlay.Forward{Prefix: left.PodCIDRs[0], Kind: overlay.Cluster}
	if !slices.Contains(got.Forward, refused) {
		t.Errorf("its pods are not refused: %v", got.Forward)
	}
}

func samePeer(a, b overlay.TunnelPeer) bool {
	return a.ID == b.ID && slices.Equal(a.AllowedIPs, b.AllowedIPs)
}

// TestPodRangesOutsideOfTheCluster: a kubelet registered its Node with a range of the
// outside, and has a certificate for it.
func TestPodRangesOutsideOfTheCluster(t *testing.T) {
	r := newReader(t)
	r.hear(r.c.Node("a", "198.51.96.0/19"))
	plan := r.plan().String()
	r.snap.NodeKeys = nil // a Node without a NodeKey
	for what, plan := range map[string]string{"verified": plan, "unverified": r.plan().String()} {
		for line := range strings.Lines(plan) {
			if strings.Contains(line, "198.51.96.0/19") && !strings.HasPrefix(line, "refused") {
				t.Errorf("%s: %s", what, line)
			}
		}
	}
}
