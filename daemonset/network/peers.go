// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package network

import (
	"net/netip"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/rotate"
	"github.com/sealane/sealane/daemonset/trust"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay"
)

// overlayPeers returns every other node as the plan needs it. A node without a
// verified key gets no lane there, its pod ranges are refused, and so are the addresses
// that were verified when it had one.
func overlayPeers(all []trust.Result, self kube.Node, d rotation.Decision) []overlay.Peer {
	var peers []overlay.Peer
	for _, j := range all {
		p := overlay.Peer{
			ID: keymgr.NodeID{Name: j.Node.Name, UID: j.Node.UID}, Keys: j.Peer.Keys, Withdrawn: j.Peer.Withdrawn,
			Addresses: j.Addresses, PodCIDRs: j.Node.PodCIDRs, Created: j.Node.Created,
		}
		if pair, ok := d.Peers[j.Node.UID]; ok {
			p.Pairs, p.Active = pair.Install, pair.Active
		}
		from := j.Node.Addresses
		if len(p.Keys) > 0 {
			from, p.PodCIDRs = j.Peer.Endpoints, j.Peer.PodCIDRs
		}
		p.Endpoint = sameFamily(from, self.Addresses)
		peers = append(peers, p)
	}
	return peers
}

// verified returns the peers with keys, and where this node reaches them.
func verified(all []trust.Result, self kube.Node) []rotate.Peer {
	var peers []rotate.Peer
	for _, j := range all {
		if len(j.Peer.Keys) > 0 {
			peers = append(peers, rotate.Peer{Peer: j.Peer, Addr: sameFamily(j.Peer.Endpoints, self.Addresses)})
		}
	}
	return peers
}

// sameFamily returns the address of the first family that both ends have, in the
// order of own, so that both ends of a pair choose the same family as long as their
// kubelets agree on the primary one. The zero Addr means that they share none.
func sameFamily(from, own []netip.Addr) netip.Addr {
	for _, mine := range own {
		for _, a := range from {
			if a.Is4() == mine.Is4() {
				return a
			}
		}
	}
	return netip.Addr{}
}
