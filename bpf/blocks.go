// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/sealane/sealane/policy"
)

const noBlock = uint64(policy.NoBlock)

func everyIPv4() podPrefix { return encodePrefix(netip.PrefixFrom(netip.IPv4Unspecified(), 0)) }

// closeIPv4 keeps classes of IPv6 addresses, such as that of ::/0, away from IPv4
// addresses, which the maps hold as IPv6 ones.
func (d *Datapath) closeIPv4() error {
	if err := d.maps.SlBlocks.Put(everyIPv4(), noBlock); err != nil {
		return fmt.Errorf("write blocks: %w", err)
	}
	return nil
}

// addBlocks writes classes of addresses, the longest prefixes first, so that an address
// moves from its old class straight to its new one. If a prefix finds no
// room, its addresses would get the class of a shorter prefix, which may be allowed where
// they are not: as long as it is missing, the shorter ones stay out too.
func (d *Datapath) addBlocks(w *writer, blocks map[netip.Prefix]policy.PeerID) {
	order := slices.SortedFunc(maps.Keys(blocks), longestFirst)
	for _, p := range order {
		k := encodePrefix(p)
		delete(d.policy.missing, k)
		if d.holdsMissing(p) {
			w.note(d.maps.SlBlocks, "write", k, ErrFull)
			d.forgetBlock(w, k)
			continue
		}
		if w.put(d.maps.SlBlocks, k, uint64(blocks[p])) {
			d.policy.blocks[k] = true
			continue
		}
		d.policy.missing[k] = true
		for have := range d.policy.blocks {
			if q := decodePrefix(have); q.Bits() <= p.Bits() && q.Contains(p.Addr()) {
				d.forgetBlock(w, have)
			}
		}
	}
}

// holdsMissing reports whether a longer prefix in p is missing.
func (d *Datapath) holdsMissing(p netip.Prefix) bool {
	for k := range d.policy.missing {
		if q := decodePrefix(k); q.Bits() > p.Bits() && p.Contains(q.Addr()) {
			return true
		}
	}
	return false
}

func (d *Datapath) forgetBlock(w *writer, k podPrefix) {
	if k == everyIPv4() {
		w.put(d.maps.SlBlocks, k, noBlock)
	} else {
		w.remove(d.maps.SlBlocks, k)
	}
	delete(d.policy.blocks, k)
}

// removeBlocks removes the shortest prefixes first, so that no address has a wrong class
// even for a moment.
func (d *Datapath) removeBlocks(w *writer, blocks []netip.Prefix) {
	for _, p := range slices.Backward(slices.SortedFunc(slices.Values(blocks), longestFirst)) {
		d.forgetBlock(w, encodePrefix(p))
		delete(d.policy.missing, encodePrefix(p))
	}
}

func longestFirst(a, b netip.Prefix) int {
	return cmp.Or(cmp.Compare(b.Bits(), a.Bits()), a.Addr().Compare(b.Addr()))
}
