// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/sealane/sealane/bpf/words"
)

// Endpoint is a pod of this node.
type Endpoint struct {
	Index int              // index of the host side of its device
	MAC   net.HardwareAddr // hardware address of the pod side
}

// SetEndpoint adds a pod's address, or replaces the earlier entry of that address.
func (d *Datapath) SetEndpoint(addr netip.Addr, e Endpoint) error {
	v := podEndpoint{Ifindex: uint32(e.Index)}
	if copy(v.Mac[:], e.MAC) != len(v.Mac) {
		return fmt.Errorf("set endpoint %s: hardware address %q is not 6 bytes", addr, e.MAC)
	}
	if err := d.maps.SlEndpoints.Put(words.Of(addr), v); err != nil {
		return fmt.Errorf("set endpoint %s: %w", addr, err)
	}
	return nil
}

// DeleteEndpoint removes a pod's address; an unknown one is no error.
func (d *Datapath) DeleteEndpoint(addr netip.Addr) error {
	if err := d.maps.SlEndpoints.Delete(words.Of(addr)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete endpoint %s: %w", addr, err)
	}
	return nil
}

// Endpoints returns what [Datapath.SetEndpoint] has set, including calls of earlier
// daemons.
func (d *Datapath) Endpoints() (map[netip.Addr]Endpoint, error) {
	all := map[netip.Addr]Endpoint{}
	var k [4]uint32
	var v podEndpoint
	it := d.maps.SlEndpoints.Iterate()
	for it.Next(&k, &v) {
		all[words.Addr(k)] = Endpoint{Index: int(v.Ifindex), MAC: net.HardwareAddr(append([]byte(nil), v.Mac[:]...))}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("list endpoints: %w", err)
	}
	return all, nil
}
