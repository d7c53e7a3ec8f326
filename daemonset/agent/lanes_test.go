// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/overlay"
)

// cable carries handshakes between two keys that have the same preshared key.
type cable struct {
	mu   sync.Mutex // guards ends
	ends map[[2]keymgr.PublicKey]keymgr.PresharedKey
}

// fakeLanes is the kernel's part of a node.
type fakeLanes struct {
	cable     *cable
	ns        *nettest.NS
	preshared func(uint64, keymgr.PublicKey) (keymgr.PresharedKey, bool)
	public    func(uint64) keymgr.PublicKey

	mu    sync.Mutex // guards all below
	plan  overlay.Plan
	since map[[2]keymgr.PublicKey]time.Time // of the handshake
	lost  []string                          // peers that an Apply took away
}

func (f *fakeLanes) Clean() error { return nil }

func (f *fakeLanes) Apply(_ context.Context, p overlay.Plan) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	peers := func(p overlay.Plan) (all []string) {
		for _, l := range p.Tunnels {
			for _, peer := range l.Peers {
				all = append(all, l.Device+" "+peer.ID.Name)
			}
		}
		return all
	}
	for _, old := range peers(f.plan) {
		if !slices.Contains(peers(p), old) {
			f.lost = append(f.lost, old)
		}
	}
	f.plan = p
	f.plan.Tunnels = slices.Clone(p.Tunnels) // Remove changes them
	for _, l := range p.Tunnels {
		if _, err := f.ns.Handle().LinkByName(l.Device); err != nil {
			f.ns.Run("ip", "link", "add", l.Device, "type", "veth", "peer", "name", "x"+l.Device[len(l.Device)-4:])
		}
		for _, peer := range l.Peers {
			psk, ok := f.preshared(l.Own, peer.Key.Key())
			if ok && peer.Preshared {
				f.cable.mu.Lock()
				f.cable.ends[[2]keymgr.PublicKey{f.public(l.Own), peer.Key.Key()}] = psk
				f.cable.mu.Unlock()
			}
		}
	}
	return nil
}

func (f *fakeLanes) Remove(gone map[string][]keymgr.PublicKey) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, l := range f.plan.Tunnels {
		f.plan.Tunnels[i].Peers = slices.DeleteFunc(slices.Clone(l.Peers), func(p overlay.TunnelPeer) bool {
			was := slices.Contains(gone[l.Device], p.Key.Key())
			if was {
				f.lost = append(f.lost, l.Device+" "+p.ID.Name)
			}
			return was
		})
	}
	return nil
}

func (f *fakeLanes) Observe() ([]overlay.TunnelState, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cable.mu.Lock()
	defer f.cable.mu.Unlock()
	var all []overlay.TunnelState
	for _, l := range f.plan.Tunnels {
		s := overlay.TunnelState{Device: l.Device, Key: f.public(l.Own), Port: l.Port}
		for _, peer := range l.Peers {
			ends := [2]keymgr.PublicKey{s.Key, peer.Key.Key()}
			mine, ok := f.cable.ends[ends]
			p := overlay.PeerState{Key: ends[1], Endpoint: peer.Endpoint, Preshared: ok, Initiates: peer.Initiate}
			if theirs, there := f.cable.ends[[2]keymgr.PublicKey{ends[1], ends[0]}]; ok && there && mine == theirs {
				if f.since[ends].IsZero() {
					f.since[ends] = time.Now()
				}
				p.LastHandshake, p.Received, p.Sent = f.since[ends], 1, 1
			}
			s.Peers = append(s.Peers, p)
		}
		all = append(all, s)
	}
	return all, nil
}

// connected reports whether each peer has a session.
func (f *fakeLanes) connected(peers int) error {
	all, err := f.Observe()
	n := 0
	for _, l := range all {
		for _, p := range l.Peers {
			if !p.LastHandshake.IsZero() {
				n++
			}
		}
	}
	if err == nil && n != peers {
		err = fmt.Errorf("%d sessions, want %d, in %+v", n, peers, all)
	}
	return err
}
