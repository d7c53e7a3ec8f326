// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package overlay

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sealane/sealane/internal/canonical"
)

// checkUnicast refuses an address that cannot belong to a node.
func checkUnicast(a netip.Addr) error {
	switch {
	case !canonical.Address(a), a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a.IsLinkLocalUnicast():
		return fmt.Errorf("%v is not a global unicast address", a)
	}
	return nil
}

// checkPrefix refuses a prefix that cannot be a range of pods. A range that holds half of
// all addresses or more is a mistake that would cut the whole node off from the network.
func checkPrefix(p netip.Prefix) error {
	switch {
	case !canonical.Prefix(p):
		return fmt.Errorf("%v is not a prefix without host bits", p)
	case p.Bits() < 2, p.Addr().IsMulticast(), p.Addr().IsLoopback(), p.Addr().IsLinkLocalUnicast():
		return fmt.Errorf("%v cannot be a range of pod addresses", p)
	}
	return nil
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func containing(ps []netip.Prefix, a netip.Addr) (netip.Prefix, bool) {
	i := slices.IndexFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
	if i < 0 {
		return netip.Prefix{}, false
	}
	return ps[i], true
}

func overlapping(ps []netip.Prefix, p netip.Prefix) (netip.Prefix, bool) {
	i := slices.IndexFunc(ps, p.Overlaps)
	if i < 0 {
		return netip.Prefix{}, false
	}
	return ps[i], true
}

// minimal returns, sorted, the prefixes that are not inside another one. Of two prefixes
// that overlap one holds the other, and Prefix.Compare puts the holder first.
func minimal(ps []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range sorted(ps, comparePrefixes) {
		if n := len(out); n > 0 && out[n-1].Overlaps(p) {
			continue
		}
		out = append(out, p)
	}
	return out
}

// comparePrefixes orders by family, address, then length, so that a prefix comes
// directly before everything inside it.
func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// disjoint is a set of prefixes of which no two overlap.
type disjoint struct {
	sorted []netip.Prefix
}

// overlapping returns the first prefix of the set that overlaps p. Members do not overlap
// each other, so only the one before p and the one after p can.
func (d *disjoint) overlapping(p netip.Prefix) (netip.Prefix, bool) {
	i, _ := slices.BinarySearchFunc(d.sorted, p, comparePrefixes)
	for _, o := range d.sorted[max(0, i-1):min(len(d.sorted), i+1)] {
		if o.Overlaps(p) {
			return o, true
		}
	}
	return netip.Prefix{}, false
}

// add inserts p, which must not overlap any member of the set.
func (d *disjoint) add(p netip.Prefix) {
	i, _ := slices.BinarySearchFunc(d.sorted, p, comparePrefixes)
	d.sorted = slices.Insert(d.sorted, i, p)
}

func sorted[T any](s []T, compare func(a, b T) int) []T {
	out := slices.Clone(s)
	slices.SortFunc(out, compare)
	return out
}
