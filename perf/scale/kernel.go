// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"net/netip"
	"slices"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay"
)

const rekey = 120 * time.Second // REKEY_AFTER_TIME of WireGuard

// kernel is a fake of WireGuard's devices: sessions begin as soon as both ends have
// the same preshared key, and packets go both ways all the time.
type kernel struct {
	links  [][]link // by author
	active []rotation.Pair
}

type link struct {
	rotation.Pair
	key        keymgr.PublicKey
	initiates  bool
	begins     time.Time // the session
	uses       time.Time // the peer begins to send by it
	rx, tx     uint64
	allowedIPs []netip.Prefix
}

// install makes the links of one peer as decided.
func (k *kernel) install(n *node, i int, p rotation.PeerDecision) {
	k.active[i] = p.Active
	k.links[i] = slices.DeleteFunc(k.links[i], func(l link) bool {
		return !slices.ContainsFunc(p.Install, func(c rotation.WantedPair) bool { return c.Pair == l.Pair })
	})
	for _, c := range p.Install {
		at := slices.IndexFunc(k.links[i], func(l link) bool { return l.Pair == c.Pair })
		if at >= 0 {
			k.links[i][at].initiates = c.Initiate
			continue
		}
		l := link{Pair: c.Pair, initiates: c.Initiate, allowedIPs: n.peers[i].PodCIDRs}
		for _, key := range slices.Concat(n.peers[i].Keys, n.peers[i].Withdrawn) {
			if key.Generation() == c.Peer {
				l.key = key.Key()
			}
		}
		l.begins = n.w.clock.Now().Add(time.Millisecond)
		if !c.Initiate { // the peer has the answer now, and brings it to its lane
			l.begins = l.begins.Add(n.w.lag())
		}
		l.uses = l.begins.Add(n.w.spread(n.w.poll()))
		k.links[i] = append(k.links[i], l)
	}
}

// observe dumps the devices.
func (k *kernel) observe(n *node) []overlay.TunnelState {
	now := n.w.clock.Now()
	own := n.identity.WGKeys().All()
	lanes := make([]overlay.TunnelState, 2*len(own))
	for x, key := range own {
		lanes[2*x].Key, lanes[2*x+1].Key = key.Public, key.Public
	}
	for i := range k.links {
		k.traffic(i, now)
		for _, l := range k.links[i] {
			x := slices.IndexFunc(own, func(key identity.WGKey) bool { return key.Generation == l.Own })
			if x < 0 {
				continue
			}
			s := overlay.PeerState{Key: l.key, AllowedIPs: l.allowedIPs, Preshared: true, Initiates: l.initiates, Received: l.rx, Sent: l.tx}
			if !l.begins.After(now) {
				s.LastHandshake = l.begins.Add(now.Sub(l.begins) / rekey * rekey)
			}
			lane := &lanes[2*x+keymgr.Parity(l.Peer)]
			lane.Peers = append(lane.Peers, s)
		}
	}
	return lanes
}

// traffic lets packets go both ways: the peer sends by the newest link that it uses.
func (k *kernel) traffic(i int, now time.Time) {
	best := -1
	for x := range k.links[i] {
		l := &k.links[i][x]
		if l.Pair == k.active[i] {
			l.tx++
			if !l.begins.After(now) {
				l.rx++
			}
		}
		if !l.uses.After(now) && (best < 0 || newer(l.Pair, k.links[i][best].Pair)) {
			best = x
		}
	}
	if best >= 0 {
		k.links[i][best].rx++
	}
}

func newer(a, b rotation.Pair) bool { return a.Peer > b.Peer || a.Peer == b.Peer && a.Own > b.Own }

func clusterCIDRs() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} }
