// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package pairing

import (
	"fmt"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/time/rate"

	"github.com/sealane/sealane/internal/crowd"
	"github.com/sealane/sealane/keymgr"
)

// door decides who comes in, by what costs nothing: addresses and counts.
type door struct {
	known            func(netip.Addr) bool
	nodes, strangers *crowd.Crowd  // of connections whose end is not known yet
	bucket           *rate.Limiter // of strangers' handshakes

	mu    sync.Mutex // guards peers
	peers map[keymgr.NodeID]int
}

func newDoor(known func(netip.Addr) bool) *door {
	return &door{
		known: known, nodes: crowd.New(crowd.Limits{All: maxKnown, PerAddress: maxPerAddress}),
		strangers: crowd.New(crowd.Limits{All: maxStrangers, PerAddress: maxStrangers}),
		bucket:    rate.NewLimiter(strangersPerSecond, strangersAtOnce), peers: map[keymgr.NodeID]int{},
	}
}

// visit is a connection that was let in.
type visit struct {
	door  *door
	guest *crowd.Guest
	peer  keymgr.NodeID // zero: not known yet
}

// admit lets a connection in, or says why not.
func (d *door) admit(conn net.Conn, from netip.Addr) (*visit, error) {
	room := d.nodes
	if !d.known(from) {
		if !d.bucket.Allow() {
			return nil, fmt.Errorf("%w: %s", ErrStranger, from)
		}
		room = d.strangers
	}
	guest, ok := room.Enter(conn, from)
	if !ok {
		return nil, fmt.Errorf("%w: as many as may be at a time", ErrCrowded)
	}
	return &visit{door: d, guest: guest}, nil
}

// introduce notes that the end is known: its address no longer counts.
func (v *visit) introduce(peer keymgr.NodeID) error {
	v.guest.Leave()
	d := v.door
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.peers[peer] >= maxPerPeer {
		return fmt.Errorf("%w: %d of node %s", ErrCrowded, maxPerPeer, peer.Name)
	}
	d.peers[peer]++
	v.peer = peer
	return nil
}

func (v *visit) leave() {
	v.guest.Leave()
	d := v.door
	d.mu.Lock()
	defer d.mu.Unlock()
	if v.peer == (keymgr.NodeID{}) {
		return
	}
	if d.peers[v.peer]--; d.peers[v.peer] == 0 {
		delete(d.peers, v.peer)
	}
}
