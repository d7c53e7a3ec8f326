// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"
)

// Endpoint is a pod of this node.
type Endpoint struct {
	Index int              // of the host side of its device
	MAC   net.HardwareAddr // of the pod side
}

// ForwardKind says what an address range is to this node. Numbers are those of
// enum forward_kind (src/maps.h).
type ForwardKind uint8

// The kinds of address range.
const (
	PodRemote  ForwardKind = 1 // pods of a peer
	NodeRemote ForwardKind = 2 // an address of a peer
	NodeLocal  ForwardKind = 3 // an address of this node
	PodLocal   ForwardKind = 4 // pods of this node
	Cluster    ForwardKind = 5 // the cluster's pods elsewhere, with no lane: refused
)

// Forward is one entry of the forwarding table; the longest prefix wins.
type Forward struct {
	Prefix        netip.Prefix
	Kind          ForwardKind
	Index         int // lane's device, for PodRemote and NodeRemote; 0: no lane yet
	Encapsulation Encapsulation
	Remote        netip.Addr // outer destination, for L2 (VXLAN)
}

// toWords gives the 16 bytes of an address as the maps hold it (IPv4 mapped
// into IPv6), in words of this machine's byte order.
func toWords(a netip.Addr) (w [4]uint32) {
	b := a.As16()
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

func fromWords(w [4]uint32) netip.Addr {
	var b [16]byte
	for i, v := range w {
		binary.NativeEndian.PutUint32(b[4*i:], v)
	}
	return netip.AddrFrom16(b).Unmap()
}

// SetEndpoint makes a pod's address known; replaces what was there.
func (d *Datapath) SetEndpoint(addr netip.Addr, e Endpoint) error {
	v := podEndpoint{Ifindex: uint32(e.Index)}
	if copy(v.Mac[:], e.MAC) != len(v.Mac) {
		return fmt.Errorf("set endpoint %s: hardware address %q is not 6 bytes", addr, e.MAC)
	}
	if err := d.maps.SlEndpoints.Put(toWords(addr), v); err != nil {
		return fmt.Errorf("set endpoint %s: %w", addr, err)
	}
	return nil
}

// DeleteEndpoint forgets a pod's address; that it is unknown is no error.
func (d *Datapath) DeleteEndpoint(addr netip.Addr) error {
	if err := d.maps.SlEndpoints.Delete(toWords(addr)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete endpoint %s: %w", addr, err)
	}
	return nil
}

// Endpoints lists what [Datapath.SetEndpoint] has set, also by earlier daemons.
func (d *Datapath) Endpoints() (map[netip.Addr]Endpoint, error) {
	all := map[netip.Addr]Endpoint{}
	var k [4]uint32
	var v podEndpoint
	it := d.maps.SlEndpoints.Iterate()
	for it.Next(&k, &v) {
		all[fromWords(k)] = Endpoint{Index: int(v.Ifindex), MAC: net.HardwareAddr(append([]byte(nil), v.Mac[:]...))}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("list endpoints: %w", err)
	}
	return all, nil
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
	p := f.Prefix.Masked()
	k := podPrefix{Len: uint32(p.Bits())}
	if p.Addr().Is4() {
		k.Len += 96
	}
	k.Addr.W = toWords(p.Addr())
	v := podForward{Ifindex: uint32(f.Index), Kind: uint8(f.Kind), L2: uint8(f.Encapsulation)}
	if f.Remote.IsValid() {
		v.Remote.W = toWords(f.Remote)
	}
	return k, v
}

func decodePrefix(k podPrefix) netip.Prefix {
	a, bits := fromWords(k.Addr.W), int(k.Len)
	if a.Is4() {
		bits -= 96
	}
	return netip.PrefixFrom(a, bits)
}

// Counter counts packets and their bytes.
type Counter struct {
	Packets, Bytes uint64
}

// Counters is what the data path has counted since its maps were made.
type Counters struct {
	Drops  map[Reason]Counter
	Paths  map[Path]Counter
	DryRun map[Reason]Counter // passed, and would not if dry-run policies were in force
}

// Counters reads the counters, summed over CPUs.
func (d *Datapath) Counters() (Counters, error) {
	c := Counters{Drops: map[Reason]Counter{}, Paths: map[Path]Counter{}, DryRun: map[Reason]Counter{}}
	for _, r := range Reasons() {
		n, err := sum(d.maps.SlDrops, uint32(r))
		if err != nil {
			return Counters{}, err
		}
		c.Drops[r] = n
	}
	for _, r := range []Reason{ReasonPolicyEgress, ReasonPolicyIngress} {
		n, err := sum(d.maps.SlDryRun, uint32(r))
		if err != nil {
			return Counters{}, err
		}
		c.DryRun[r] = n
	}
	for _, p := range Paths() {
		n, err := sum(d.maps.SlPaths, uint32(p))
		if err != nil {
			return Counters{}, err
		}
		c.Paths[p] = n
	}
	return c, nil
}

func sum(m *ebpf.Map, key uint32) (Counter, error) {
	var perCPU []podCounter
	if err := m.Lookup(key, &perCPU); err != nil {
		return Counter{}, fmt.Errorf("read counter %d: %w", key, err)
	}
	var c Counter
	for _, v := range perCPU {
		c.Packets += v.Packets
		c.Bytes += v.Bytes
	}
	return c, nil
}

// Leak is a packet with a pod's address that the leak guard stopped.
type Leak struct {
	Source, Destination netip.Addr
	Index               int // of the device
	Reason              Reason
}

// LastLeak gives the newest packet that the leak guard stopped; false: none yet.
func (d *Datapath) LastLeak() (Leak, bool, error) {
	var v podLeak
	if err := d.maps.SlLeaks.Lookup(uint32(0), &v); err != nil {
		return Leak{}, false, fmt.Errorf("read leaks: %w", err)
	}
	l := Leak{fromWords(v.Src.W), fromWords(v.Dst.W), int(v.Ifindex), Reason(v.Reason)}
	return l, l.Reason != 0, nil
}
