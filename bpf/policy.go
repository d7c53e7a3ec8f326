// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/sealane/sealane/bpf/words"
	"github.com/sealane/sealane/policy"
)

// encoded is what this daemon must remember about the tables in the kernel, because reading
// it from the kernel is expensive.
type encoded struct {
	ports   map[policy.PortsID][]podPortKey
	blocks  map[podPrefix]bool
	missing map[podPrefix]bool // blocks that found no room
}

// recall reads d.policy from the maps that an earlier daemon left.
func (d *Datapath) recall() error {
	d.policy = encoded{ports: map[policy.PortsID][]podPortKey{}, blocks: map[podPrefix]bool{}, missing: map[podPrefix]bool{}}
	ports, err := entries[podPortKey, uint32](d.maps.SlPorts)
	if err != nil {
		return fmt.Errorf("list ports: %w", err)
	}
	for k := range ports {
		d.policy.ports[portSetOf(k)] = append(d.policy.ports[portSetOf(k)], k)
	}
	blocks, err := entries[podPrefix, uint64](d.maps.SlBlocks)
	if err != nil {
		return fmt.Errorf("list blocks: %w", err)
	}
	for k, class := range blocks {
		if k != everyIPv4() || class != noBlock {
			d.policy.blocks[k] = true
		}
	}
	if !d.policy.blocks[everyIPv4()] {
		return d.closeIPv4()
	}
	return nil
}

// SyncPolicy makes the tables in the kernel equal to want, whatever they were. Flows that
// both allow continue; one may lose a packet that arrives while a pod's rules and its
// peer's identity or class are both being exchanged.
func (d *Datapath) SyncPolicy(want policy.Tables) error {
	have, err := d.PolicyTables()
	if err != nil {
		return err
	}
	return d.ApplyPolicy(policy.Difference(have, want))
}

// PolicyTables reads the kernel's tables entry by entry; the cost grows with their whole
// size.
func (d *Datapath) PolicyTables() (policy.Tables, error) {
	identities, err1 := entries[[4]uint32, uint64](d.maps.SlIdentities)
	blocks, err2 := entries[podPrefix, uint64](d.maps.SlBlocks)
	guards, err3 := entries[[4]uint32, podEndpointPolicy](d.maps.SlEpPolicies)
	sets, err4 := entries[uint64, podRuleSet](d.maps.SlRuleSets)
	rules, err5 := entries[podRule, uint64](d.maps.SlRules)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return policy.Tables{}, fmt.Errorf("read policy tables: %w", err)
	}
	t := policy.Tables{
		Identities: map[netip.Addr]policy.PeerID{}, Blocks: map[netip.Prefix]policy.PeerID{}, Endpoints: map[netip.Addr]policy.EndpointPolicy{},
		Sets: map[policy.SetID]policy.Set{}, Rules: map[policy.Rule]policy.PortsID{}, Ports: map[policy.PortsID][]policy.Ports{},
	}
	for k, v := range identities {
		t.Identities[words.Addr(k)] = policy.PeerID(v)
	}
	for k, v := range guards {
		t.Endpoints[words.Addr(k)] = policy.EndpointPolicy{
			Egress: policy.SetID(v.Egress), Ingress: policy.SetID(v.Ingress),
			DryRunEgress: policy.SetID(v.DryRunEgress), DryRunIngress: policy.SetID(v.DryRunIngress),
		}
	}
	for k, v := range sets {
		t.Sets[policy.SetID(k)] = policy.Set{Any: policy.PortsID(v.Any), Pods: policy.PortsID(v.Pods)}
	}
	for k, v := range rules {
		t.Rules[policy.Rule{Set: policy.SetID(k.Set), Peer: policy.PeerID(k.Peer)}] = policy.PortsID(v)
	}
	d.tables.Lock()
	defer d.tables.Unlock()
	for k, v := range blocks {
		if k != everyIPv4() || d.policy.blocks[k] { // otherwise closeIPv4 made the entry
			t.Blocks[decodePrefix(k)] = policy.PeerID(v)
		}
	}
	for id, keys := range d.policy.ports {
		t.Ports[id] = portsOf(keys)
	}
	return t, nil
}

// ApplyPolicy writes changes in the order that [policy.Changes] asks for: an entry that
// others refer to is written first and removed last. So the steps of a [compile.Compiler]
// never stop in between what both the old and the new tables allow, neither flows nor their
// first packets; a [policy.Difference] may. When all is written, every flow is judged
// again.
//
// It continues after an entry that cannot be written: what is missing is not allowed. The
// error says what is missing; [Datapath.SyncPolicy] tries again.
func (d *Datapath) ApplyPolicy(c policy.Changes) error {
	d.tables.Lock()
	defer d.tables.Unlock()
	w := &writer{}
	d.addPorts(w, c.Set.Ports)
	for k, v := range c.Set.Sets {
		w.put(d.maps.SlRuleSets, uint64(k), podRuleSet{Any: uint64(v.Any), Pods: uint64(v.Pods)})
	}
	for k, v := range c.Set.Rules {
		w.put(d.maps.SlRules, podRule{Set: uint64(k.Set), Peer: uint64(k.Peer)}, uint64(v))
	}
	for k, v := range c.Set.Identities {
		w.put(d.maps.SlIdentities, words.Of(k), uint64(v))
	}
	d.addBlocks(w, c.Set.Blocks)
	for k, v := range c.Set.Endpoints {
		w.put(d.maps.SlEpPolicies, words.Of(k), podEndpointPolicy{
			Egress: uint64(v.Egress), Ingress: uint64(v.Ingress), DryRunEgress: uint64(v.DryRunEgress), DryRunIngress: uint64(v.DryRunIngress),
		})
	}
	d.removePolicy(w, c.Removed)
	return errors.Join(w.err(), d.changeState(func(s *podPolicyState) { s.Generation++ }))
}

func (d *Datapath) removePolicy(w *writer, gone policy.Keys) {
	for _, k := range gone.Endpoints {
		w.remove(d.maps.SlEpPolicies, words.Of(k))
	}
	for _, k := range gone.Identities {
		w.remove(d.maps.SlIdentities, words.Of(k))
	}
	d.removeBlocks(w, gone.Blocks)
	for _, k := range gone.Rules {
		w.remove(d.maps.SlRules, podRule{Set: uint64(k.Set), Peer: uint64(k.Peer)})
	}
	for _, k := range gone.Sets {
		w.remove(d.maps.SlRuleSets, uint64(k))
	}
	for _, id := range gone.Ports {
		for _, k := range d.policy.ports[id] {
			w.remove(d.maps.SlPorts, k)
		}
		delete(d.policy.ports, id)
	}
}

// changeState changes the part of the tables that is one value.
func (d *Datapath) changeState(change func(*podPolicyState)) error {
	var s podPolicyState
	if err := d.maps.SlPolicyState.Lookup(uint32(0), &s); err != nil {
		return fmt.Errorf("read policy state: %w", err)
	}
	change(&s)
	if err := d.maps.SlPolicyState.Put(uint32(0), s); err != nil {
		return fmt.Errorf("write policy state: %w", err)
	}
	return nil
}
