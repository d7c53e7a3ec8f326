// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"fmt"
	"net/netip"
	"slices"
)

// claims says which node holds which WireGuard key, pod range and address: the first to claim
// keeps it. The prefixes of all nodes are disjoint, so sorted by address they are also
// sorted by their ends, and only neighbours can overlap.
type claims struct {
	keys      map[PublicKey]NodeID
	addresses map[netip.Addr]NodeID
	prefixes  []prefixClaim
}

type prefixClaim struct {
	prefix netip.Prefix
	owner  NodeID
}

func newClaims() claims {
	return claims{keys: map[PublicKey]NodeID{}, addresses: map[netip.Addr]NodeID{}}
}

// holdAddresses gives addresses to a node.
func (c *claims) holdAddresses(id NodeID, addrs []netip.Addr) {
	for _, a := range addrs {
		c.addresses[a] = id
	}
}

// releaseAddresses frees those of a node's addresses that are not in keep.
func (c *claims) releaseAddresses(id NodeID, addrs, keep []netip.Addr) {
	for _, a := range addrs {
		if c.addresses[a] == id && !slices.Contains(keep, a) {
			delete(c.addresses, a)
		}
	}
}

// checkKey refuses a key that another node holds.
func (c *claims) checkKey(key PublicKey, id NodeID) error {
	if owner, taken := c.keys[key]; taken && owner != id {
		return fmt.Errorf("%w: %s is held by node %s", ErrDuplicateKey, key, owner)
	}
	return nil
}

// checkPrefix refuses a prefix that overlaps one of another node.
func (c *claims) checkPrefix(p netip.Prefix, id NodeID) error {
	i := c.search(p)
	for _, n := range c.prefixes[max(i-1, 0):] {
		if n.prefix.Overlaps(p) {
			if n.owner != id {
				return fmt.Errorf("%w: %s overlaps %s of node %s", ErrPodCIDROverlap, p, n.prefix, n.owner)
			}
		} else if n.prefix.Addr().Compare(p.Addr()) > 0 {
			break
		}
	}
	return nil
}

// replace gives a node what its statement claims in place of what the one before claimed.
// In each pass over the cluster nearly no node has changed, and then replace moves
// nothing: moving one prefix takes time in proportion to all of them.
func (c *claims) replace(before, next Statement) {
	if slices.Equal(before.PodCIDRs, next.PodCIDRs) && slices.EqualFunc(before.Keys, next.Keys, StatementKey.Same) && c.holds(next) {
		return
	}
	c.release(before)
	c.hold(next)
}

// holds reports whether the keys and prefixes of a statement are its node's.
func (c *claims) holds(s Statement) bool {
	for _, k := range s.Keys {
		if c.keys[k.Key] != s.ID() {
			return false
		}
	}
	for _, p := range s.PodCIDRs {
		i := c.search(p)
		if i == len(c.prefixes) || c.prefixes[i] != (prefixClaim{prefix: p, owner: s.ID()}) {
			return false
		}
	}
	return true
}

// hold gives a checked statement's keys and prefixes to its node. What the node
// held before must have been released.
func (c *claims) hold(s Statement) {
	for _, k := range s.Keys {
		c.keys[k.Key] = s.ID()
	}
	for _, p := range s.PodCIDRs {
		c.prefixes = slices.Insert(c.prefixes, c.search(p), prefixClaim{prefix: p, owner: s.ID()})
	}
}

// release frees what hold gave for the same statement; without a hold it does nothing.
func (c *claims) release(s Statement) {
	for _, k := range s.Keys {
		if c.keys[k.Key] == s.ID() {
			delete(c.keys, k.Key)
		}
	}
	for _, p := range s.PodCIDRs {
		i := c.search(p)
		if i < len(c.prefixes) && c.prefixes[i] == (prefixClaim{prefix: p, owner: s.ID()}) {
			c.prefixes = slices.Delete(c.prefixes, i, i+1)
		}
	}
}

// search returns the place of the first claim that does not begin before p.
func (c *claims) search(p netip.Prefix) int {
	i, _ := slices.BinarySearchFunc(c.prefixes, p, func(n prefixClaim, p netip.Prefix) int {
		return n.prefix.Addr().Compare(p.Addr())
	})
	return i
}
