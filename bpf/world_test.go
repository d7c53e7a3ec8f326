// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/policy"
)

// world is a small cluster: own pods and node, two peers, of which one has a
// lane, and an address of the cluster that belongs to nobody.
func world(t testing.TB, d *Datapath) *oracle {
	t.Helper()
	o := &oracle{endpoints: map[netip.Addr]int{}, flows: map[oracleFlow]*oracleState{}, datagrams: map[oracleFlow]testPacket{}, origins: map[oracleFlow]netip.AddrPort{}}
	for _, a := range addrs("10.1.1.2", "10.1.1.3", "fd00:1:1::2", "fd00:1:1::3") {
		o.endpoints[a] = loopback
	}
	for _, a := range addrs("10.1.1.4", "fd00:1:1::4") {
		o.endpoints[a] = loopback + 1
	}
	add := func(prefix string, k overlay.ForwardKind, index int) {
		o.forwards = append(o.forwards, Forward{Prefix: netip.MustParsePrefix(prefix), Kind: k, Index: index})
	}
	add("10.1.0.0/16", overlay.Cluster, 0)
	add("fd00:1::/48", overlay.Cluster, 0)
	add("10.1.1.0/24", overlay.PodLocal, 0)
	add("fd00:1:1:0::/64", overlay.PodLocal, 0)
	add("10.1.2.0/24", overlay.PodRemote, 9)
	add("fd00:1:2::/64", overlay.PodRemote, 9)
	add("10.1.3.0/24", overlay.PodRemote, 0)
	add("172.30.0.1/32", overlay.NodeLocal, 0)
	add("fd00:30::1/128", overlay.NodeLocal, 0)
	add("172.30.0.2/32", overlay.NodeRemote, 9)
	add("fd00:30::2/128", overlay.NodeRemote, 9)
	for a, i := range o.endpoints {
		mac := net.HardwareAddr{2, 0, 0, 0, 0, byte(i)}
		if err := d.SetEndpoint(a, Endpoint{Index: i, MAC: mac}); err != nil {
			t.Fatal(err)
		}
		if err := d.ApplyPolicy(unguarded(a)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.SyncForwards(o.forwards); err != nil {
		t.Fatal(err)
	}
	return o
}

func everyAddress() []netip.Addr {
	return addrs("10.1.1.2", "10.1.1.3", "10.1.1.4", "10.1.1.9", "10.1.2.2", "10.1.3.2", "10.1.9.9", "172.30.0.1", "172.30.0.2",
		"172.30.0.9", "192.0.2.1", "127.0.0.1", "224.0.0.1", "255.255.255.255",
		"fd00:1:1::2", "fd00:1:1::3", "fd00:1:1::4", "fd00:1:1::9", "fd00:1:2::2", "fd00:1:9::9", "fd00:30::1", "fd00:30::2",
		"fd00:30::9", "2001:db8::1", "::1", "ff02::1", "fe80::2", "::")
}

// change gives the programs and the oracle other tables.
func (o *oracle) change(t testing.TB, d *Datapath, tables policy.Tables) {
	t.Helper()
	if err := d.SyncPolicy(tables); err != nil {
		t.Fatal(err)
	}
	o.tables = tables
	o.changes++
}

// open is guards that no policy has a say in.
func (o *oracle) open() map[netip.Addr]policy.EndpointPolicy {
	guards := map[netip.Addr]policy.EndpointPolicy{}
	for a := range o.endpoints {
		guards[a] = policy.EndpointPolicy{}
	}
	return guards
}

// randomTables draws from few numbers, so that what is drawn is met, and allows
// about as much as it denies.
func randomTables(r *rand.Rand, o *oracle) policy.Tables {
	t := policy.Tables{
		Identities: map[netip.Addr]policy.PeerID{}, Blocks: map[netip.Prefix]policy.PeerID{}, Endpoints: o.open(),
		Sets: map[policy.SetID]policy.Set{}, Rules: map[policy.Rule]policy.PortsID{}, Ports: map[policy.PortsID][]policy.Ports{},
	}
	sets := []policy.SetID{policy.NotIsolated, policy.NotIsolated, policy.Closed, 11, 12, 13}
	ports := []policy.PortsID{policy.NoPorts, policy.NoPorts, policy.AllPorts, 21, 22, 23}
	for a := range t.Endpoints {
		g := policy.EndpointPolicy{Egress: pick(r, sets), Ingress: pick(r, sets)}
		g.DryRunEgress, g.DryRunIngress = g.Egress, g.Ingress
		if r.IntN(3) == 0 {
			g.DryRunEgress, g.DryRunIngress = pick(r, sets), pick(r, sets)
		}
		t.Endpoints[a] = g
		if r.IntN(10) == 0 {
			delete(t.Endpoints, a)
		}
	}
	for _, a := range everyAddress() {
		if k := o.find(a).Kind; (k == overlay.PodLocal || k == overlay.PodRemote || k == overlay.Cluster) && r.IntN(4) > 0 {
			t.Identities[a] = policy.PeerID(31 + r.IntN(3))
		}
	}
	for _, text := range []string{
		"0.0.0.0/0", "10.1.0.0/16", "10.1.2.0/24", "10.1.1.2/32", "172.30.0.0/24", "172.30.0.2/32", "192.0.2.0/24",
		"::/0", "fd00:1::/32", "fd00:1:2::/64", "fd00:30::/64", "fd00:30::2/128", "2001:db8::/32",
	} {
		if r.IntN(2) == 0 {
			t.Blocks[netip.MustParsePrefix(text)] = pick(r, []policy.PeerID{policy.NoBlock, 41, 42, 43})
		}
		if all := netip.MustParsePrefix("0.0.0.0/0"); t.Blocks[all] == policy.NoBlock {
			delete(t.Blocks, all) // in no exception can it be
		}
	}
	for _, set := range sets[2:] {
		t.Sets[set] = policy.Set{Any: pick(r, ports), Pods: pick(r, ports)}
		for _, peer := range []policy.PeerID{31, 32, 33, 41, 42, 43} {
			t.Rules[policy.Rule{Set: set, Peer: peer}] = pick(r, ports)
		}
	}
	t.Sets[policy.Closed] = policy.Set{}
	for _, id := range ports[3:] {
		first := uint16(r.IntN(4))
		t.Ports[id] = []policy.Ports{
			{Protocol: protoTCP, First: first, Last: first + uint16(r.IntN(3))},
			{Protocol: pick(r, []uint8{protoUDP, protoSCTP}), First: uint16(r.IntN(3)), Last: 2 + uint16(r.IntN(65530))},
		}
	}
	return t
}
