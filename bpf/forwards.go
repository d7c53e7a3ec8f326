// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

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

// SyncForwards makes the forwarding table equal to want: first everything new
// or changed, then removals, so that no range is ever without its entry.
func (d *Datapath) SyncForwards(want []Forward) error {
	have, err := d.forwards()
	if err != nil {
		return err
	}
	for _, f := range want {
		k, v := encodeForward(f)
		old, ok := have[k]
		delete(have, k)
		if ok && old == v {
			continue
		}
		if err := d.maps.SlForwards.Put(k, v); err != nil {
			return fmt.Errorf("set forward %s: %w", f.Prefix, err)
		}
	}
	for k := range have {
		if err := d.maps.SlForwards.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete forward %s: %w", decodePrefix(k), err)
		}
	}
	return nil
}

func (d *Datapath) forwards() (map[podPrefix]podForward, error) {
	all := map[podPrefix]podForward{}
	var k podPrefix
	var v podForward
	it := d.maps.SlForwards.Iterate()
	for it.Next(&k, &v) {
		all[k] = v
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("list forwards: %w", err)
	}
	return all, nil
}

func encodeForward(f Forward) (podPrefix, podForward) {
	v := podForward{Ifindex: uint32(f.Index), Kind: uint8(f.Kind), L2: uint8(f.Encapsulation)}
	if f.Remote.IsValid() {
		v.Remote.W = toWords(f.Remote)
	}
	return encodePrefix(f.Prefix), v
}
