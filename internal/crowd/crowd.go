// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package crowd bounds the open connections of a server so that no client keeps others out.
//
// A server that merely stops accepting at a limit belongs to whoever opens connections and
// says nothing. Here, a connection that does nothing makes room for a new one, and whoever
// holds most makes room first.
package crowd

import (
	"io"
	"net/netip"
	"slices"
	"sync"
)

// Limits are how many connections may be open, in all and from one address.
type Limits struct{ All, PerAddress int }

// Crowd is the open connections of a server. It is safe for concurrent use.
type Crowd struct {
	limits Limits

	mu     sync.Mutex // guards guests, from, and what is in the guests
	guests []*Guest   // the oldest first
	from   map[netip.Addr]int
}

// Guest is one open connection.
type Guest struct {
	crowd *Crowd
	conn  io.Closer
	from  netip.Addr
	busy  bool
}

// New returns an empty crowd.
func New(l Limits) *Crowd { return &Crowd{limits: l, from: map[netip.Addr]int{}} }

// Enter adds a connection, which counts as idle. Where a limit is reached, it closes another
// one: of the same address if that one has its share, else of the address that has most,
// else one that is idle. It reports false, and leaves conn open, if all are busy and none
// has more than this one's address.
func (c *Crowd) Enter(conn io.Closer, from netip.Addr) (*Guest, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.from[from] >= c.limits.PerAddress {
		c.evict(c.oldest(from))
	}
	if len(c.guests) >= c.limits.All {
		victim := c.victim(from)
		if victim == nil {
			return nil, false
		}
		c.evict(victim)
	}
	g := &Guest{crowd: c, conn: conn, from: from}
	c.guests = append(c.guests, g)
	c.from[from]++
	return g, true
}

// victim returns the guest that makes room for one more of an address.
func (c *Crowd) victim(from netip.Addr) *Guest {
	most := from
	for a, n := range c.from {
		if n > c.from[most] {
			most = a
		}
	}
	if c.from[most] > c.from[from]+1 {
		return c.oldest(most)
	}
	if i := slices.IndexFunc(c.guests, func(g *Guest) bool { return !g.busy }); i >= 0 {
		return c.guests[i]
	}
	return nil
}

// oldest returns the oldest guest of an address, one that is idle if there is one.
func (c *Crowd) oldest(from netip.Addr) *Guest {
	var first *Guest
	for _, g := range c.guests {
		if g.from != from {
			continue
		}
		if !g.busy {
			return g
		}
		if first == nil {
			first = g
		}
	}
	return first
}

func (c *Crowd) evict(g *Guest) {
	c.remove(g)
	g.conn.Close() // whoever serves it sees the error
}

func (c *Crowd) remove(g *Guest) {
	i := slices.Index(c.guests, g)
	if i < 0 {
		return // it was evicted
	}
	c.guests = slices.Delete(c.guests, i, i+1)
	if c.from[g.from]--; c.from[g.from] == 0 {
		delete(c.from, g.from)
	}
}

// SetBusy says whether the connection has something to do, and so is to stay.
func (g *Guest) SetBusy(busy bool) {
	g.crowd.mu.Lock()
	defer g.crowd.mu.Unlock()
	g.busy = busy
}

// Leave removes the connection from the crowd. It does not close it, and may be repeated.
func (g *Guest) Leave() {
	g.crowd.mu.Lock()
	defer g.crowd.mu.Unlock()
	g.crowd.remove(g)
}
