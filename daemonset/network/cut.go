// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package network

import (
	"slices"

	"github.com/sealane/sealane/daemonset/trust"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/overlay"
)

// keys is a set of peers' keys.
type keys map[keymgr.PublicKey]bool

// vouched returns all keys of the peers that are verified, those that they have withdrawn
// too: traffic may be on its way. Keys of revoked nodes are not among them.
func vouched(peers []trust.Result) keys {
	all := keys{}
	for _, p := range peers {
		for _, k := range p.Peer.AllKeys() {
			all[k.Key()] = true
		}
	}
	return all
}

// admitted returns all keys of the peers that have a lane in the plan. A key of theirs
// that is not in the plan leaves its tunnel when the plan is applied: the addresses
// move to another key first.
func admitted(v *View) keys {
	planned := map[keymgr.NodeID]bool{}
	for _, t := range v.Plan.Tunnels {
		for _, p := range t.Peers {
			planned[p.ID] = true
		}
	}
	var peers []trust.Result
	for _, p := range v.Peers {
		if planned[p.Peer.ID] {
			peers = append(peers, p)
		}
	}
	return vouched(peers)
}

// strangers returns the peers of tunnels that are not among the keys, by device.
func strangers(lanes []overlay.TunnelState, known keys) map[string][]keymgr.PublicKey {
	found := map[string][]keymgr.PublicKey{}
	for _, lane := range lanes {
		for _, p := range lane.Peers {
			if !known[p.Key] {
				found[lane.Device] = append(found[lane.Device], p.Key)
			}
		}
	}
	return found
}

// cut takes all peers off the tunnels that are not among the keys, and out of lanes. By
// this revocation works, so it needs nothing that may be missing, full or busy.
func (l *Loop) cut(lanes []overlay.TunnelState, known keys) error {
	gone := strangers(lanes, known)
	if len(gone) == 0 {
		return nil
	}
	err := l.Lanes.Remove(gone)
	for i := range lanes {
		lanes[i].Peers = slices.DeleteFunc(lanes[i].Peers, func(p overlay.PeerState) bool { return err == nil && !known[p.Key] })
	}
	for device, peers := range gone {
		l.log.Info("peers taken off a tunnel", "device", device, "peers", len(peers), "error", err)
	}
	return err
}
