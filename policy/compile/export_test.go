// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package compile

// Leftovers counts what the compiler keeps; zeros for one that knows of nothing.
func (c *Compiler) Leftovers() []int {
	return []int{
		len(c.pods), len(c.spaces), len(c.owners), len(c.sets), c.closed, len(c.peers.identities), len(c.peers.selectors),
		len(c.peers.scoped), len(c.peers.spaces), len(c.peers.numbers.keys), len(c.setNumbers.keys), len(c.ports.numbers.keys),
		len(c.ports.byID), len(c.ports.byKey), len(c.groups.nodes), len(c.groups.byKey), len(c.groups.sorted), len(c.networkPolicies),
	}
}

// Put places a tier before those that there are.
func (c *Compiler) Put(first Evaluator) { c.tiers = append([]Evaluator{first}, c.tiers...) }

// SetHash replaces what numbers the things of a kind.
func (c *Compiler) SetHash(kind string, hash func(string) uint64) {
	switch kind {
	case "peer":
		c.peers.numbers.hash = hash
	case "set":
		c.setNumbers.hash = hash
	case "ports":
		c.ports.numbers.hash = hash
	}
}

// Sizes counts identities and rules.
func (c *Compiler) Sizes() (identities, rules int) { return len(c.peers.identities), len(c.rules.now) }

// Stale counts selectors that identities know of and no set uses.
func (c *Compiler) Stale() int {
	n := 0
	for _, p := range c.peers.identities {
		for cr := range p.selectors {
			if c.peers.selectors[cr.spec.Key] != cr {
				n++
			}
		}
	}
	return n
}
