// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"net/netip"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/rotate"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay"
)

func plainPeers(snap kube.Snapshot, self string) []judged {
	var all []judged
	for _, node := range snap.Nodes {
		if node.Name != self {
			all = append(all, judged{node: node})
		}
	}
	return all
}

// overlayPeers gives every other node to the plan; one without a verified key
// gets no lane there, and its addresses are refused.
func overlayPeers(all []judged, self kube.Node, d rotation.Decision) []overlay.Peer {
	var peers []overlay.Peer
	for _, j := range all {
		p := overlay.Peer{
			ID: keymgr.NodeID{Name: j.node.Name, UID: j.node.UID}, Keys: j.peer.Keys, Withdrawn: j.peer.Withdrawn,
			Addresses: j.node.Addresses, PodCIDRs: j.node.PodCIDRs,
		}
		if pair, ok := d.Peers[j.node.UID]; ok {
			p.Combinations, p.Active = rotate.Combinations(pair), overlay.Slot(pair.Active)
		}
		from := j.node.Addresses
		if len(p.Keys) > 0 {
			from, p.PodCIDRs = j.peer.Endpoints, j.peer.PodCIDRs
		}
		p.Endpoint = sameFamily(from, self.Addresses)
		peers = append(peers, p)
	}
	return peers
}

// verified are the peers with keys, and where this node reaches them.
func verified(all []judged, self kube.Node) []rotate.Peer {
	var peers []rotate.Peer
	for _, j := range all {
		if len(j.peer.Keys) > 0 {
			peers = append(peers, rotate.Peer{Peer: j.peer, Addr: sameFamily(j.peer.Endpoints, self.Addresses)})
		}
	}
	return peers
}

// sameFamily picks the address of the first family that both ends have, in the
// order of own, so that both ends of a pair pick the same one as long as their
// kubelets agree on the primary family.
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
