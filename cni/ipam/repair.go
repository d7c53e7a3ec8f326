// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ipam

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/sealane/sealane/internal/times"
)

// PoolStats says how full one pool is.
type PoolStats struct {
	Prefix netip.Prefix
	// Size is the number of usable addresses, at most math.MaxUint64.
	Size uint64
	// InUse is the number of addresses that cannot be given out; Resting is how many of
	// them are released and wait for the end of the reuse delay.
	InUse, Resting int
}

// Stats returns how full the pools are, in the order of the prefixes.
func (a *Allocator) Stats() []PoolStats {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sweepLocked()
	stats := make([]PoolStats, len(a.pools))
	for i, p := range a.pools {
		stats[i] = a.statsLocked(p)
	}
	return stats
}

func (a *Allocator) statsLocked(p *Pool) PoolStats {
	s := PoolStats{Prefix: p.Prefix(), Size: p.Size(), InUse: p.InUse()}
	for _, l := range a.resting {
		if slices.ContainsFunc(l.Addresses, p.Contains) {
			s.Resting++
		}
	}
	return s
}

// Lease returns the lease that owner holds.
func (a *Allocator) Lease(owner Owner) (Lease, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h, ok := a.held[owner]
	return h.clone(), ok
}

// Leases returns all leases that are held, sorted by their first address.
func (a *Allocator) Leases() []Lease {
	a.mu.Lock()
	defer a.mu.Unlock()
	leases := make([]Lease, 0, len(a.held))
	for _, h := range a.held {
		leases = append(leases, h.clone())
	}
	slices.SortFunc(leases, func(x, y Lease) int {
		return cmp.Or(x.Addresses[0].Compare(y.Addresses[0]), cmp.Compare(x.Owner.String(), y.Owner.String()))
	})
	return leases
}

// Stale returns the leases whose owner is not live, and which are older than the grace,
// counted from when the owner last asked for them: an ADD that is under way is not stale,
// though its pod is in no list yet.
func (a *Allocator) Stale(live func(Lease) bool) []Lease {
	return slices.DeleteFunc(a.Leases(), func(l Lease) bool {
		if live(l) {
			return true
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		h, ok := a.held[l.Owner] // false if it was released in the meantime
		return !ok || !a.pastGrace(h)
	})
}

// Missed takes one view of the live owners: seen says whether it contains owner. Missed
// reports whether owner has been absent from all views for the grace. A single view says
// little: the mirror of a static pod is deleted and created again, and a pod that was
// deleted by force still runs for a while. The time counts from the first view without
// owner, in this run of the daemon.
func (a *Allocator) Missed(owner Owner, seen bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	h, ok := a.held[owner]
	if !ok {
		return false
	}
	now := a.opts.Clock()
	switch {
	case seen:
		h.missed = time.Time{}
	case h.missed.IsZero():
		h.missed = now
	}
	a.held[owner] = h
	return !seen && now.Sub(h.missed) >= a.opts.Grace
}

// pastGrace reports whether the lease may be released if its owner is not live.
func (a *Allocator) pastGrace(h holding) bool {
	now := a.opts.Clock()
	return now.Sub(h.Created) >= a.opts.Grace && now.Sub(h.touched) >= a.opts.Grace
}

// adopt takes over what the store held at the start. It runs before the allocator is
// shared, when there are no pools yet.
func (a *Allocator) adopt(c Contents) {
	a.holdLocked(c.Blocked)
	now := a.opts.Clock()
	// Oldest first, so that the newer of two leases of one owner wins.
	slices.SortFunc(c.Leases, func(x, y Lease) int { return x.Created.Compare(y.Created) })
	for _, l := range c.Leases {
		a.holdLocked(l.Addresses)
		a.lastGiven = l.Addresses
		// A time in the future means that the clock has been set back: the reuse delay and
		// the age then count from now.
		l.Created = times.Earlier(l.Created, now)
		l.Released = times.Earlier(l.Released, now)
		if !l.Released.IsZero() {
			a.resting = append(a.resting, l)
			continue
		}
		if old, twice := a.held[l.Owner]; twice {
			a.opts.Logger.Warn("owner has two leases; the older one is released",
				logOwner, l.Owner.String(), logAddresses, old.Addresses)
			old.Released = now
			a.resting = append(a.resting, old.Lease)
		}
		a.held[l.Owner] = holding{Lease: l}
	}
	a.sweepLocked()
}

// clone returns a copy that shares nothing with l.
func (l Lease) clone() Lease {
	l.Addresses = slices.Clone(l.Addresses)
	return l
}
