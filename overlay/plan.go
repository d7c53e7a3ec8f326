// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package overlay

import (
	"net/netip"
	"reflect"
	"slices"

	"github.com/sealane/sealane/keymgr"
)

// Plan is everything a node needs of the overlay, sorted. It holds no secret.
type Plan struct {
	Kind       Kind
	MTU        int            // bytes, of tunnels, pods' devices and routes
	Addresses  []netip.Prefix // this node's own, on every tunnel as /32 and /128
	Tunnels    []Tunnel
	Routes     []Route
	Rules      []Rule
	Forward    []Forward
	Masquerade Masquerade
	Refused    []Refusal
}

// Tunnel is a kernel device that carries lanes.
type Tunnel struct {
	Device string
	Own    uint64 // this node's key generation on it; 0 for VXLAN
	Port   uint16 // UDP port it listens on
	Peers  []TunnelPeer
}

// TunnelPeer is a peer of a WireGuard device. The key came out of keymgr's
// verification; there is no other way to make one.
type TunnelPeer struct {
	ID         keymgr.NodeID
	Key        keymgr.PeerKey
	Endpoint   netip.AddrPort
	AllowedIPs []netip.Prefix // what it may send and what is sent to it
	Preshared  bool           // with a preshared key, or not at all
	Initiate   bool           // this node starts the handshakes
}

// Route is a kernel route; Device is a tunnel's name, empty if Unreachable.
type Route struct {
	Dst         netip.Prefix
	Device      string
	Src         netip.Addr // what the host itself uses as source
	Table       int        // 0 means the main table
	Metric      int
	MTU         int
	Unreachable bool
}

// Rule is a policy-routing rule.
type Rule struct {
	Priority int
	From     netip.Prefix // 0.0.0.0/0 or ::/0 for all of a family
	Mark     uint32       // bits that a packet's mark must have; 0: any mark
	Table    int
}

// ForwardKind says what an address range is to this node. The numbers are those of
// the data path's forwarding table.
type ForwardKind uint8

// The kinds of address range.
const (
	PodRemote  ForwardKind = 1 // pods of a peer
	NodeRemote ForwardKind = 2 // an address of a peer
	NodeLocal  ForwardKind = 3 // an address of this node
	PodLocal   ForwardKind = 4 // pods of this node
	Cluster    ForwardKind = 5 // pods elsewhere, no lane: refused
)

// String names the kind.
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

// Forward is one entry of the forwarding table of the data path; the longest
// prefix wins, and no prefix is there twice.
type Forward struct {
	Prefix netip.Prefix
	Kind   ForwardKind
	Device string     // tunnel, for PodRemote and NodeRemote; empty: no lane, refuse
	Remote netip.Addr // outer destination, VXLAN only
}

// Masquerade says which packets must not leave with the source they have.
type Masquerade struct {
	// Pods are this node's pod ranges: what they send to the outside takes the
	// node's address.
	Pods []netip.Prefix
	// Cluster are all pod ranges: not the outside.
	Cluster []netip.Prefix
	// Nodes are this node's addresses. With Pods they are all the sources that a
	// peer accepts from this node; anything else that enters a lane is masqueraded.
	Nodes []netip.Prefix
	// Peers are the addresses of all other nodes: what a pod begins with one of
	// them takes the node's address.
	Peers []netip.Prefix
	// Sources is what is masqueraded into a lane takes as its source: one address
	// of this node for each family that it has.
	Sources []netip.Addr
}

// Refusal is a peer, or one address of a peer, that the Plan leaves out.
type Refusal struct {
	ID     keymgr.NodeID
	Whole  bool // the peer has no lane at all
	Reason string
}

// Equal says whether two plans want the same.
func (p Plan) Equal(o Plan) bool { return reflect.DeepEqual(p, o) }

// EqualButPeers says whether two plans differ in nothing but the peers of devices.
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

// Tunnel returns the tunnel with that device name.
func (p Plan) Tunnel(device string) (Tunnel, bool) {
	for _, t := range p.Tunnels {
		if t.Device == device {
			return t, true
		}
	}
	return Tunnel{}, false
}
