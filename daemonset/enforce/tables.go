// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"maps"
	"net/netip"

	"github.com/sealane/sealane/policy"
)

func newTables() policy.Tables {
	return policy.Tables{
		Identities: map[netip.Addr]policy.ID{}, Blocks: map[netip.Prefix]policy.ID{}, Guards: map[netip.Addr]policy.Guard{},
		Sets: map[policy.ID]policy.Set{}, Rules: map[policy.Rule]policy.ID{}, Ports: map[policy.ID][]policy.Ports{},
	}
}

// merge brings tables up to date.
func merge(t policy.Tables, c policy.Changes) {
	update(t.Identities, c.Set.Identities, c.Removed.Identities)
	update(t.Blocks, c.Set.Blocks, c.Removed.Blocks)
	update(t.Guards, c.Set.Guards, c.Removed.Guards)
	update(t.Sets, c.Set.Sets, c.Removed.Sets)
	update(t.Rules, c.Set.Rules, c.Removed.Rules)
	update(t.Ports, c.Set.Ports, c.Removed.Ports)
}

func update[K comparable, V any](table, set map[K]V, removed []K) {
	for _, k := range removed {
		delete(table, k)
	}
	maps.Copy(table, set)
}

// size counts the entries that changes write or take away.
func size(c policy.Changes) int {
	return len(c.Set.Identities) + len(c.Set.Blocks) + len(c.Set.Guards) + len(c.Set.Sets) + len(c.Set.Rules) + len(c.Set.Ports) +
		len(c.Removed.Identities) + len(c.Removed.Blocks) + len(c.Removed.Guards) + len(c.Removed.Sets) + len(c.Removed.Rules) + len(c.Removed.Ports)
}
