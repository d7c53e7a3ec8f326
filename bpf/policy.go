// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/policy"
)

// encoded is what this daemon must remember of the tables in the kernel, since
// the kernel cannot be asked for it cheaply.
type encoded struct {
	ports  map[policy.ID][]podPortKey
	blocks map[podPrefix]bool
}

// recall reads it from the maps that an earlier daemon has left.
func (d *Datapath) recall() error {
	d.policy = encoded{ports: map[policy.ID][]podPortKey{}, blocks: map[podPrefix]bool{}}
	ports, err := entries[podPortKey, uint32](d.maps.Ports)
	if err != nil {
		return fmt.Errorf("list ports: %w", err)
	}
	for k := range ports {
		d.policy.ports[portSetOf(k)] = append(d.policy.ports[portSetOf(k)], k)
	}
	blocks, err := entries[podPrefix, uint64](d.maps.Blocks)
	if err != nil {
		return fmt.Errorf("list blocks: %w", err)
	}
	for k := range blocks {
		d.policy.blocks[k] = true
	}
	return nil
}

// entries reads a whole map.
func entries[K comparable, V any](m *ebpf.Map) (map[K]V, error) {
	all := map[K]V{}
	var k K
	var v V
	it := m.Iterate()
	for it.Next(&k, &v) {
		all[k] = v
	}
	return all, it.Err()
}

// SyncPolicy makes the tables in the kernel equal to want, whatever they were.
// Traffic that both allow is let through all the while.
func (d *Datapath) SyncPolicy(want policy.Tables) error {
	have, err := d.policyTables()
	if err != nil {
		return err
	}
	return d.ApplyPolicy(policy.Difference(have, want))
}

// policyTables reads what the kernel has.
func (d *Datapath) policyTables() (policy.Tables, error) {
	identities, err1 := entries[[4]uint32, uint64](d.maps.Identities)
	blocks, err2 := entries[podPrefix, uint64](d.maps.Blocks)
	guards, err3 := entries[[4]uint32, podGuard](d.maps.Guards)
	sets, err4 := entries[uint64, podRuleSet](d.maps.Sets)
	rules, err5 := entries[podRule, uint64](d.maps.Rules)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return policy.Tables{}, fmt.Errorf("read policy tables: %w", err)
	}
	t := policy.Tables{
		Identities: map[netip.Addr]policy.ID{}, Blocks: map[netip.Prefix]policy.ID{}, Guards: map[netip.Addr]policy.Guard{},
		Sets: map[policy.ID]policy.Set{}, Rules: map[policy.Rule]policy.ID{}, Ports: map[policy.ID][]policy.Ports{},
	}
	for k, v := range identities {
		t.Identities[fromWords(k)] = policy.ID(v)
	}
	for k, v := range blocks {
		t.Blocks[decodePrefix(k)] = policy.ID(v)
	}
	for k, v := range guards {
		t.Guards[fromWords(k)] = policy.Guard{
			Egress: policy.ID(v.Egress), Ingress: policy.ID(v.Ingress),
			TrialEgress: policy.ID(v.TrialEgress), TrialIngress: policy.ID(v.TrialIngress),
		}
	}
	for k, v := range sets {
		t.Sets[policy.ID(k)] = policy.Set{Any: policy.ID(v.Any), Pods: policy.ID(v.Pods)}
	}
	for k, v := range rules {
		t.Rules[policy.Rule{Set: policy.ID(k.Set), Peer: policy.ID(k.Peer)}] = policy.ID(v)
	}
	d.tables.Lock()
	defer d.tables.Unlock()
	for id, keys := range d.policy.ports {
		t.Ports[id] = portsOf(keys)
	}
	return t, nil
}

// ApplyPolicy writes changes in an order that lets nothing through that both
// the old tables and the new ones forbid, and stops nothing that both allow:
// what others lead to comes first and goes last. Flows are judged anew when all
// is written.
//
// It goes on after an entry that cannot be written: what is missing is not
// allowed. The error says what is missing; [Datapath.SyncPolicy] tries again.
func (d *Datapath) ApplyPolicy(c policy.Changes) error {
	d.tables.Lock()
	defer d.tables.Unlock()
	w := &writer{}
	d.addPorts(w, c.Set.Ports)
	for k, v := range c.Set.Sets {
		w.put(d.maps.Sets, uint64(k), podRuleSet{Any: uint64(v.Any), Pods: uint64(v.Pods)})
	}
	for k, v := range c.Set.Rules {
		w.put(d.maps.Rules, podRule{Set: uint64(k.Set), Peer: uint64(k.Peer)}, uint64(v))
	}
	for k, v := range c.Set.Identities {
		w.put(d.maps.Identities, toWords(k), uint64(v))
	}
	d.addBlocks(w, c.Set.Blocks)
	for k, v := range c.Set.Guards {
		w.put(d.maps.Guards, toWords(k), podGuard{
			Egress: uint64(v.Egress), Ingress: uint64(v.Ingress), TrialEgress: uint64(v.TrialEgress), TrialIngress: uint64(v.TrialIngress),
		})
	}
	d.removePolicy(w, c.Removed)
	return errors.Join(w.err(), d.changeState(func(s *podPolicyState) { s.Generation++ }))
}

func (d *Datapath) removePolicy(w *writer, gone policy.Keys) {
	for _, k := range gone.Guards {
		w.remove(d.maps.Guards, toWords(k))
	}
	for _, k := range gone.Rules {
		w.remove(d.maps.Rules, podRule{Set: uint64(k.Set), Peer: uint64(k.Peer)})
	}
	for _, k := range gone.Sets {
		w.remove(d.maps.Sets, uint64(k))
	}
	for _, k := range gone.Identities {
		w.remove(d.maps.Identities, toWords(k))
	}
	for _, p := range gone.Blocks {
		k, _ := encodeForward(Forward{Prefix: p})
		w.remove(d.maps.Blocks, k)
		delete(d.policy.blocks, k)
	}
	for _, id := range gone.Ports {
		for _, k := range d.policy.ports[id] {
			w.remove(d.maps.Ports, k)
		}
		delete(d.policy.ports, id)
	}
}

// addBlocks writes classes of addresses, the longest prefixes first. A prefix
// that finds no room would give its addresses the class of a shorter one, which
// may be allowed where they are not: then the shorter ones go too.
func (d *Datapath) addBlocks(w *writer, blocks map[netip.Prefix]policy.ID) {
	order := slices.SortedFunc(maps.Keys(blocks), func(a, b netip.Prefix) int {
		return cmp.Or(cmp.Compare(b.Bits(), a.Bits()), a.Addr().Compare(b.Addr()))
	})
	for _, p := range order {
		k, _ := encodeForward(Forward{Prefix: p})
		if w.put(d.maps.Blocks, k, uint64(blocks[p])) {
			d.policy.blocks[k] = true
			continue
		}
		for have := range d.policy.blocks {
			if q := decodePrefix(have); q.Bits() <= p.Bits() && q.Contains(p.Addr()) {
				w.remove(d.maps.Blocks, have)
				delete(d.policy.blocks, have)
			}
		}
	}
}

func (d *Datapath) addPorts(w *writer, sets map[policy.ID][]policy.Ports) {
	for id, ranges := range sets {
		var written []podPortKey
		for _, r := range ranges {
			for _, k := range portKeys(id, r) {
				if w.put(d.maps.Ports, k, uint32(1)) {
					written = append(written, k)
				}
			}
		}
		d.policy.ports[id] = written
	}
}

// portBits are the bits of a port key in front of the port itself.
const portBits = 64 + 8

// portKeys covers a range of ports with prefixes: at most 30 of them.
func portKeys(id policy.ID, r policy.Ports) []podPortKey {
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

func portSetOf(k podPortKey) policy.ID {
	return policy.ID(k.Set[0]) | policy.ID(k.Set[1])<<32
}

// portsOf is what portKeys has made keys of.
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

// changeState changes the part of the tables that is one value.
func (d *Datapath) changeState(change func(*podPolicyState)) error {
	var s podPolicyState
	if err := d.maps.Settings.Lookup(uint32(0), &s); err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	change(&s)
	if err := d.maps.Settings.Put(uint32(0), s); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// writer writes to maps and goes on after an error, of which it keeps the first
// and counts the rest.
type writer struct {
	first error
	more  int
}

func (w *writer) note(m *ebpf.Map, verb string, k any, err error) {
	if errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM) {
		err = fmt.Errorf("%w (%w)", ErrFull, err)
	}
	if w.first == nil {
		w.first = fmt.Errorf("%s %v in %s: %w", verb, k, m, err)
		return
	}
	w.more++
}

func (w *writer) put(m *ebpf.Map, k, v any) bool {
	err := m.Put(k, v)
	if err != nil {
		w.note(m, "write", k, err)
	}
	return err == nil
}

func (w *writer) remove(m *ebpf.Map, k any) {
	if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		w.note(m, "remove", k, err)
	}
}

func (w *writer) err() error {
	if w.more > 0 {
		return fmt.Errorf("%w, and %d more", w.first, w.more)
	}
	return w.first
}
