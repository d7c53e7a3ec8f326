// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package overlay

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/rotation"
)

// Compute returns what this node needs to reach the peers. The order of the input does not
// matter. An error is about cfg; a fault of a peer is listed in Plan.Refused and does not
// affect other peers.
func Compute(cfg Config, peers []Peer) (Plan, error) {
	cfg, err := cfg.normalize()
	if err != nil {
		return Plan{}, err
	}
	a := admit(cfg, peers)
	mtu, err := cfg.tunnelMTU(a.admitted)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{
		Kind: cfg.Kind, MTU: mtu, Addresses: hosts(cfg.Addresses),
		Tunnels: cfg.tunnels(a.admitted), Refused: a.refused,
	}
	ranges := cfg.clusterRanges(a)
	p.Routes = cfg.routes(a, ranges, mtu)
	p.Rules = cfg.rules()
	p.Forward = cfg.forward(a, ranges)
	p.Masquerade = Masquerade{
		Pods: cfg.PodCIDRs, Cluster: ranges, Nodes: p.Addresses, Peers: a.peerAddresses(), Sources: cfg.sources(),
	}
	p.Ports = cfg.Ports
	p.Ports.Tunnels = TunnelPorts(cfg.Kind, cfg.BasePort)
	return p, nil
}

// peerAddresses returns the addresses of all other nodes, with or without a lane.
func (a *admission) peerAddresses() []netip.Prefix {
	var all []netip.Addr
	for _, p := range slices.Concat(a.admitted, a.known) {
		all = append(all, p.Addresses...)
	}
	return slices.Compact(hosts(all))
}

// sources returns the first address of this node in each family.
func (c Config) sources() []netip.Addr {
	var out []netip.Addr
	for _, a := range c.Addresses {
		if a == c.sourceFor(a) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// clusterRanges returns all pod ranges of the cluster that this node knows.
func (c Config) clusterRanges(a *admission) []netip.Prefix {
	return minimal(slices.Concat(c.ClusterCIDRs, a.pods.sorted))
}

func hosts(addrs []netip.Addr) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, host(a))
	}
	slices.SortFunc(out, comparePrefixes)
	return out
}

func (c Config) tunnels(peers []Peer) []Tunnel {
	if c.Kind == VXLAN {
		return []Tunnel{{Device: VXLANDevice, Port: VXLANPort}}
	}
	var out []Tunnel
	// Both devices of an own generation exist even when no peer has a key of that parity:
	// the first peer that rotates must find its device ready.
	for _, own := range c.Generations {
		for peer := range uint64(2) {
			out = append(out, Tunnel{
				Device: TunnelName(own, peer), Own: own, Port: keymgr.Port(c.BasePort, own, peer),
				Peers: c.tunnelPeers(own, peer, peers),
			})
		}
	}
	slices.SortFunc(out, func(a, b Tunnel) int { return strings.Compare(a.Device, b.Device) })
	return out
}

// tunnelPeers returns the peers that have a key for D[own][peer].
func (c Config) tunnelPeers(own, peer uint64, peers []Peer) []TunnelPeer {
	var out []TunnelPeer
	for _, p := range peers {
		for _, k := range p.Keys {
			slot := rotation.Pair{Own: own, Peer: k.Generation()}
			i := slices.IndexFunc(p.Pairs, func(c rotation.WantedPair) bool { return c.Pair == slot })
			if i < 0 || keymgr.Parity(k.Generation()) != keymgr.Parity(peer) {
				continue
			}
			out = append(out, TunnelPeer{
				ID: p.ID, Key: k,
				Endpoint:   netip.AddrPortFrom(p.Endpoint, k.Ports()[keymgr.Parity(own)]),
				AllowedIPs: sorted(slices.Concat(p.PodCIDRs, hosts(p.Addresses)), comparePrefixes),
				Preshared:  p.Pairs[i].Preshared, Initiate: p.Pairs[i].Initiate,
			})
		}
	}
	return out
}

// device returns the name of the tunnel that carries packets to p.
func (c Config) device(p Peer) string {
	if c.Kind == VXLAN {
		return VXLANDevice
	}
	slot := p.Pairs[0].Pair
	if slices.ContainsFunc(p.Pairs, func(c rotation.WantedPair) bool { return c.Pair == p.Active }) {
		slot = p.Active
	}
	return TunnelName(slot.Own, slot.Peer)
}

func (c Config) routes(a *admission, ranges []netip.Prefix, mtu int) []Route {
	var out []Route
	refuse := func(dst netip.Prefix, table int) {
		out = append(out, Route{Dst: dst, Table: table, Metric: UnreachableMetric, Unreachable: true})
	}
	for _, dst := range ranges {
		refuse(dst, 0)
	}
	for _, p := range slices.Concat(a.admitted, a.known) {
		for _, addr := range p.Addresses {
			refuse(host(addr), RouteTable)
		}
	}
	for _, p := range a.admitted {
		device := c.device(p)
		for _, dst := range p.PodCIDRs {
			out = append(out, Route{Dst: dst, Device: device, Src: c.sourceFor(dst.Addr()), MTU: mtu})
		}
		// These routes go only into the table that pods' packets use: in the main table
		// they would send the lane's own outer packets into the lane.
		for _, addr := range p.Addresses {
			out = append(out, Route{Dst: host(addr), Device: device, Table: RouteTable, MTU: mtu})
		}
	}
	slices.SortFunc(out, compareRoutes)
	return out
}

func compareRoutes(a, b Route) int {
	return cmp.Or(cmp.Compare(a.Table, b.Table), comparePrefixes(a.Dst, b.Dst), cmp.Compare(a.Metric, b.Metric))
}

func (c Config) rules() []Rule {
	var out []Rule
	for _, p := range c.PodCIDRs {
		out = append(out, Rule{Priority: RulePriority, From: p, Table: RouteTable})
	}
	// Answers to packets that came out of a lane go to addresses of nodes, which the main
	// table routes past the lanes.
	for _, a := range c.sources() {
		all := netip.PrefixFrom(a, 0).Masked()
		out = append(out, Rule{Priority: RulePriority, From: all, Mark: LaneMark, Table: RouteTable})
	}
	return out
}

func (c Config) forward(a *admission, ranges []netip.Prefix) []Forward {
	table := map[netip.Prefix]Forward{}
	set := func(ps []netip.Prefix, f Forward) {
		for _, p := range ps {
			f.Prefix = p
			table[p] = f
		}
	}
	// More specific entries come later and replace an equal prefix: the only node of a
	// cluster may own the whole range of the cluster.
	set(ranges, Forward{Kind: Cluster})
	for _, p := range a.known {
		set(p.PodCIDRs, Forward{Kind: Cluster})
		set(hosts(p.Addresses), Forward{Kind: NodeRemote})
	}
	for _, p := range a.admitted {
		f := Forward{Kind: PodRemote, Device: c.device(p)}
		if c.Kind == VXLAN {
			f.Remote = p.Endpoint
		}
		set(p.PodCIDRs, f)
		f.Kind = NodeRemote
		set(hosts(p.Addresses), f)
	}
	set(c.PodCIDRs, Forward{Kind: PodLocal})
	set(hosts(c.Addresses), Forward{Kind: NodeLocal})
	out := make([]Forward, 0, len(table))
	for _, f := range table {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b Forward) int { return comparePrefixes(a.Prefix, b.Prefix) })
	return out
}
