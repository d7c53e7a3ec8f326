// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sealane/sealane/bpf/words"
	"github.com/sealane/sealane/overlay"
)

// Forward is one entry of the forwarding table; the longest prefix wins.
type Forward struct {
	Prefix        netip.Prefix
	Kind          overlay.ForwardKind
	Index         int // index of the tunnel, for PodRemote and NodeRemote; 0 means no lane yet
	Encapsulation Encapsulation
	Remote        netip.Addr // outer destination for L2 (VXLAN); else zero
}

// SyncForwards makes the forwarding table equal to want. Removals come first, because they
// cut lanes and make room. If want does not fit, peers' addresses stay out, which one peer
// could multiply, and the error, an ErrFull, names them. An entry that cannot be written
// does not keep the others from it.
func (d *Datapath) SyncForwards(want []Forward) error {
	m := d.maps.SlForwards
	have, err := entries[podPrefix, podForward](m)
	if err != nil {
		return fmt.Errorf("list forwards: %w", err)
	}
	fits, rest := fit(want, int(m.MaxEntries()))
	next := make(map[podPrefix]podForward, len(fits))
	for _, f := range fits {
		k, v := encodeForward(f)
		next[k] = v
	}
	var w writer
	for k := range have {
		if _, ok := next[k]; !ok {
			w.remove(m, k)
		}
	}
	for _, f := range fits {
		k := encodePrefix(f.Prefix)
		if old, ok := have[k]; !ok || old != next[k] {
			w.replace(m, k, next[k])
		}
	}
	if len(rest) > 0 {
		w.note(m, "write", fmt.Sprintf("%s to %s (%d forwards)", rest[0].Prefix, rest[len(rest)-1].Prefix, len(rest)), ErrFull)
	}
	return w.err()
}

// fit sorts forwards by how much depends on each: this node's own, pod ranges, and then the
// addresses of peers. What finds no room is the rest.
func fit(want []Forward, room int) (fits, rest []Forward) {
	rank := map[overlay.ForwardKind]int{overlay.PodRemote: 1, overlay.Cluster: 1, overlay.NodeRemote: 2}
	order := slices.SortedStableFunc(slices.Values(want), func(a, b Forward) int { return cmp.Compare(rank[a.Kind], rank[b.Kind]) })
	room = min(room, len(order))
	return order[:room], order[room:]
}

func encodeForward(f Forward) (podPrefix, podForward) {
	v := podForward{Ifindex: uint32(f.Index), Kind: uint8(f.Kind), L2: uint8(f.Encapsulation)}
	if f.Remote.IsValid() {
		v.Remote.W = words.Of(f.Remote)
	}
	return encodePrefix(f.Prefix), v
}
