// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotate

import (
	"slices"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay"
)

// Paths are the paths in the kernel by the peer's key.
type Paths map[keymgr.PublicKey][]Path

// Path is a peer of a tunnel in the kernel, with the generation of this node's key.
type Path struct {
	Own  uint64
	Peer overlay.PeerState
}

// NewPaths sorts the kernel's tunnel peers by key; it skips tunnels without a key of this
// node.
func NewPaths(own []identity.WGKey, lanes []overlay.TunnelState) Paths {
	index := Paths{}
	for _, l := range lanes {
		i := slices.IndexFunc(own, func(k identity.WGKey) bool { return k.Public == l.Key })
		if i < 0 {
			continue
		}
		for _, p := range l.Peers {
			index[p.Key] = append(index[p.Key], Path{own[i].Generation, p})
		}
	}
	return index
}

func (x Paths) paths(k keymgr.PeerKey) []rotation.Path {
	var out []rotation.Path
	for _, s := range x[k.Key()] {
		out = append(out, rotation.Path{
			Pair:      rotation.Pair{Own: s.Own, Peer: k.Generation()},
			Handshake: s.Peer.LastHandshake, Received: s.Peer.Received, Sent: s.Peer.Sent,
			Preshared: s.Peer.Preshared, Initiates: s.Peer.Initiates,
		})
	}
	return out
}
