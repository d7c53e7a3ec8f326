// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotate

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/sealane/sealane/internal/signal"
	"github.com/sealane/sealane/keymgr"
)

// places knows which addresses belong to which node.
type places struct {
	moved signal.Signal // this node has other addresses

	mu     sync.Mutex // guards the fields below
	here   []netip.Addr
	owners map[netip.Addr]keymgr.NodeID // partners, by all of their addresses
}

func newPlaces() *places { return &places{moved: signal.New()} }

// settle names the addresses of this node: where peers ask it, and from where it asks them.
func (p *places) settle(addresses []netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Equal(p.here, addresses) {
		p.here = slices.Clone(addresses)
		p.moved.Raise()
	}
}

// meet replaces the partners' addresses.
func (p *places) meet(owners map[netip.Addr]keymgr.NodeID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.owners = owners
}

func (p *places) addresses() []netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.here
}

// source returns the address of this node that a peer at another knows; the zero Addr if
// there is none of its family.
func (p *places) source(peer netip.Addr) netip.Addr {
	for _, a := range p.addresses() {
		if a.Is4() == peer.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// known reports whether an address is a partner's.
func (p *places) known(a netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.owners[a]
	return ok
}

// at returns the node that has the address a, or a node named after the address if none has
// it.
func (p *places) at(a netip.Addr) keymgr.NodeID {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id, ok := p.owners[a]; ok {
		return id
	}
	return keymgr.NodeID{Name: a.String()}
}
