// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/sealane/sealane/bpf/words"
)

// Counter counts packets and their bytes.
type Counter struct {
	Packets, Bytes uint64
}

// Counters is what the data path has counted since its maps were made.
type Counters struct {
	Drops  map[Reason]Counter
	Paths  map[Path]Counter
	DryRun map[Reason]Counter // passed, but would be dropped if dry-run policies were in force
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
	Index               int // index of the device
	Reason              Reason
}

// LastLeak returns the newest packet that the leak guard stopped; false means none yet.
func (d *Datapath) LastLeak() (Leak, bool, error) {
	var v podLeak
	if err := d.maps.SlLeaks.Lookup(uint32(0), &v); err != nil {
		return Leak{}, false, fmt.Errorf("read leaks: %w", err)
	}
	l := Leak{words.Addr(v.Src.W), words.Addr(v.Dst.W), int(v.Ifindex), Reason(v.Reason)}
	return l, l.Reason != 0, nil
}
