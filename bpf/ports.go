// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/sealane/sealane/policy"
)

func (d *Datapath) addPorts(w *writer, sets map[policy.PortsID][]policy.Ports) {
	for id, ranges := range sets {
		var written []podPortKey
		for _, r := range ranges {
			for _, k := range portKeys(id, r) {
				if w.put(d.maps.SlPorts, k, uint32(1)) {
					written = append(written, k)
				}
			}
		}
		for _, k := range d.policy.ports[id] {
			if !slices.Contains(written, k) {
				w.remove(d.maps.SlPorts, k)
			}
		}
		d.policy.ports[id] = written
	}
}

// portBits are the bits of a port key in front of the port itself.
const portBits = 64 + 8

// portKeys covers a range of ports with at most 30 prefixes.
func portKeys(id policy.PortsID, r policy.Ports) []podPortKey {
	var keys []podPortKey
	for first, last := uint32(r.First), uint32(r.Last); first <= last; {
		size := bits.TrailingZeros32(first | 1<<16)
		for first+1<<size-1 > last {
			size--
		}
		k := podPortKey{Len: portBits + 16 - uint32(size), Proto: r.Protocol}
		k.Set[0], k.Set[1] = uint32(id), uint32(id>>32)
		binary.BigEndian.PutUint16(k.Port[:], uint16(first))
		keys = append(keys, k)
		first += 1 << size
	}
	return keys
}

func portSetOf(k podPortKey) policy.PortsID {
	return policy.PortsID(k.Set[0]) | policy.PortsID(k.Set[1])<<32
}

// portsOf is the inverse of portKeys.
func portsOf(keys []podPortKey) []policy.Ports {
	var all []policy.Ports
	for _, k := range keys {
		first := binary.BigEndian.Uint16(k.Port[:])
		all = append(all, policy.Ports{Protocol: k.Proto, First: first, Last: first + uint16(1<<(portBits+16-k.Len)-1)})
	}
	slices.SortFunc(all, func(a, b policy.Ports) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First))
	})
	merged := all[:0]
	for _, p := range all {
		if n := len(merged); n > 0 && merged[n-1].Protocol == p.Protocol && uint32(merged[n-1].Last)+1 == uint32(p.First) {
			merged[n-1].Last = p.Last
			continue
		}
		merged = append(merged, p)
	}
	return merged
}
