// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policy

// Leftovers counts what the compiler keeps; zeros for one that knows of nothing.
func (c *Compiler) Leftovers() []int {
	return []int{
		len(c.pods), len(c.spaces), len(c.owners), len(c.sets), c.closed, len(c.peers.identities), len(c.peers.criteria),
		len(c.peers.scoped), len(c.peers.spaces), len(c.peers.numbers.keys), len(c.setNumbers.keys), len(c.ports.numbers.keys),
		len(c.ports.byID), len(c.ports.byKey), len(c.classes.nodes), len(c.classes.byKey), len(c.classes.sorted),
	}
}

// Stale counts criteria that identities know of and no set uses.
func (c *Compiler) Stale() int {
	n := 0
	for _, p := range c.peers.identities {
		for cr := range p.criteria {
			if c.peers.criteria[cr.spec.key] != cr {
				n++
			}
		}
	}
	return n
}
