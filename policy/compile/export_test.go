// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package compile

import "github.com/sealane/sealane/policy"

// Leftovers counts what the compiler keeps; zeros for one that knows of nothing.
func (c *Compiler) Leftovers() []int {
	return []int{
		len(c.pods), len(c.spaces), len(c.owners), len(c.sets), c.closed, len(c.peers.identities), len(c.peers.criteria),
		len(c.peers.scoped), len(c.peers.spaces), len(c.peers.numbers.keys), len(c.setNumbers.keys), len(c.ports.numbers.keys),
		len(c.ports.byID), len(c.ports.byKey), len(c.classes.nodes), len(c.classes.byKey), len(c.classes.sorted), len(c.networkPolicies),
	}
}

// Put places a tier before those that there are.
func (c *Compiler) Put(first Evaluator) { c.tiers = append([]Evaluator{first}, c.tiers...) }

// SetHash replaces what numbers the things of a kind.
func (c *Compiler) SetHash(kind string, hash func(string) policy.ID) {
	for _, r := range []*registry{&c.peers.numbers, &c.setNumbers, &c.ports.numbers} {
		if r.kind == kind {
			r.hash = hash
		}
	}
}

// Sizes counts identities and rules.
func (c *Compiler) Sizes() (identities, rules int) { return len(c.peers.identities), len(c.rules.now) }

// Stale counts criteria that identities know of and no set uses.
func (c *Compiler) Stale() int {
	n := 0
	for _, p := range c.peers.identities {
		for cr := range p.criteria {
			if c.peers.criteria[cr.spec.Key] != cr {
				n++
			}
		}
	}
	return n
}
