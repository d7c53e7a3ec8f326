// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package overlay

import (
	"net/netip"
	"reflect"
	"slices"

	"github.com/sealane/sealane/keymgr"
)

// Plan is everything a node needs for the overlay, sorted. It holds no secrets.
type Plan struct {
	Kind       Kind
	MTU        int            // bytes; of tunnels, pods' devices and routes
	Addresses  []netip.Prefix // this node's, set on every tunnel as /32 and /128
	Tunnels    []Tunnel
	Routes     []Route
	Rules      []Rule
	Forward    []Forward
	Masquerade Masquerade
	Ports      Ports
	Refused    []Refusal
}

// Tunnel is a kernel device that carries lanes.
type Tunnel struct {
	Device string
	Own    uint64 // generation of this node's key on the device; 0 for VXLAN
	Port   uint16 // UDP port it listens on
	Peers  []TunnelPeer
}

// TunnelPeer is a peer of a WireGuard device. Its key comes from keymgr's verification;
// there is no other way to make one.
type TunnelPeer struct {
	ID         keymgr.NodeID
	Key        keymgr.PeerKey
	Endpoint   netip.AddrPort
	AllowedIPs []netip.Prefix // sources that the peer may use, and destinations that are sent to it
	Preshared  bool           // do not install this peer without a preshared key
	Initiate   bool           // this node starts the handshakes
}

// Route is a kernel route. Device is the name of a tunnel, or empty if Unreachable is set.
type Route struct {
	Dst         netip.Prefix
	Device      string
	Src         netip.Addr // source of the host's own packets; the zero Addr lets the kernel choose
	Table       int        // number of the table; 0 means the main table
	Metric      int
	MTU         int
	Unreachable bool
}

// Rule is a policy-routing rule.
type Rule struct {
	Priority int
	From     netip.Prefix // source; 0.0.0.0/0 or ::/0 means all of a family
	Mark     uint32       // bits that a packet's mark must have; 0 means any mark
	Table    int
}

// ForwardKind says what an address range is to this node. Its numbers are those in the data
// path's forwarding table.
type ForwardKind uint8

// The kinds of address range.
const (
	PodRemote  ForwardKind = 1 // pods of a peer
	NodeRemote ForwardKind = 2 // an address of a peer
	NodeLocal  ForwardKind = 3 // an address of this node
	PodLocal   ForwardKind = 4 // pods of this node
	Cluster    ForwardKind = 5 // pods elsewhere, no lane: refused
)

// String returns the name of the kind.
func (k ForwardKind) String() string {
	switch k {
	case PodRemote:
		return "pod-remote"
	case NodeRemote:
		return "node-remote"
	case NodeLocal:
		return "node-local"
	case PodLocal:
		return "pod-local"
	case Cluster:
		return "cluster"
	}
	return "unknown"
}

// Forward is one entry of the data path's forwarding table. The longest prefix wins, and
// each prefix occurs once.
type Forward struct {
	Prefix netip.Prefix
	Kind   ForwardKind
	Device string     // tunnel, for PodRemote and NodeRemote; empty means no lane: refuse
	Remote netip.Addr // outer destination; zero for WireGuard
}

// Masquerade says which packets must not leave with their own source address.
type Masquerade struct {
	// Pods are this node's pod ranges. What they send to the outside takes the address of
	// the node.
	Pods []netip.Prefix
	// Cluster are all pod ranges, which are not the outside.
	Cluster []netip.Prefix
	// Nodes are this node's addresses. A peer accepts only Nodes and Pods as sources from
	// this node; whatever else enters a lane is masqueraded.
	Nodes []netip.Prefix
	// Peers are the addresses of all other nodes. What a pod begins with one of them takes
	// the address of this node.
	Peers []netip.Prefix
	// Sources are the addresses that packets masqueraded into a lane take as source: one of
	// this node for each of its families.
	Sources []netip.Addr
}

// Ports are the ports of this node that serve Sealane: no pod reaches them, and nobody's
// translation of addresses leads their packets elsewhere.
type Ports struct {
	Tunnels []uint16 // UDP
	Pairing uint16   // TCP, for preshared keys; 0: none
	Own     []uint16 // TCP, for probes, metrics and reports of the agent and the controller
	// Readers are ranges from which those of Own may be read. Ranges of pods open them to
	// pods, to all of other nodes, since those come with their node's address.
	Readers []netip.Prefix
}

// TunnelPorts returns the UDP ports of a node's tunnels; base is WireGuard's first.
func TunnelPorts(k Kind, base uint16) []uint16 {
	if k == VXLAN {
		return []uint16{VXLANPort}
	}
	return []uint16{base, base + 1, base + 2, base + 3}
}

// Refusal is a peer, or one address of a peer, that the Plan leaves out.
type Refusal struct {
	ID     keymgr.NodeID
	Whole  bool // the peer has no lane at all
	Reason string
}

// Equal reports whether two plans want the same.
func (p Plan) Equal(o Plan) bool { return reflect.DeepEqual(p, o) }

// EqualButPeers reports whether two plans differ only in the peers of tunnels, if at all.
func (p Plan) EqualButPeers(o Plan) bool {
	devices := func(all []Tunnel) []Tunnel {
		out := slices.Clone(all)
		for i := range out {
			out[i].Peers = nil
		}
		return out
	}
	p.Tunnels, o.Tunnels = devices(p.Tunnels), devices(o.Tunnels)
	return p.Equal(o)
}

// Tunnel returns the tunnel with the given device name.
func (p Plan) Tunnel(device string) (Tunnel, bool) {
	for _, t := range p.Tunnels {
		if t.Device == device {
			return t, true
		}
	}
	return Tunnel{}, false
}
