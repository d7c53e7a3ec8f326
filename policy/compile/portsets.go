// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package compile

import (
	"cmp"
	"slices"

	"github.com/sealane/sealane/policy"
)

// portBook counts who uses which set of ports.
type portBook struct {
	numbers registry
	table   ledger[policy.ID, []policy.Ports]
	byKey   map[string]*portSet
	byID    map[policy.ID]*portSet
}

type portSet struct {
	key  string
	id   policy.ID
	refs int
}

func newPortBook() portBook {
	table := ledger[policy.ID, []policy.Ports]{
		now: map[policy.ID][]policy.Ports{}, before: map[policy.ID]entry[[]policy.Ports]{},
		same: slices.Equal[[]policy.Ports], order: cmp.Compare[policy.ID],
	}
	return portBook{newRegistry("ports"), table, map[string]*portSet{}, map[policy.ID]*portSet{}}
}

// acquire returns the number of a resolved policy.PortSpec, until it is released as
// often.
func (b *portBook) acquire(a policy.PortSpec) policy.ID {
	switch {
	case a.All:
		return policy.AllPorts
	case len(a.Ranges) == 0:
		return policy.NoPorts
	}
	key := a.Key()
	set := b.byKey[key]
	if set == nil {
		set = &portSet{key: key, id: b.numbers.claim(key)}
		if set.id == policy.NoPorts {
			return policy.NoPorts // refused: allows nothing
		}
		b.byKey[key], b.byID[set.id] = set, set
		b.table.set(set.id, a.Ranges)
	}
	set.refs++
	return set.id
}

func (b *portBook) release(id policy.ID) {
	set := b.byID[id]
	if set == nil {
		return // NoPorts, AllPorts
	}
	if set.refs--; set.refs > 0 {
		return
	}
	delete(b.byKey, set.key)
	delete(b.byID, id)
	b.numbers.release(set.key, id)
	b.table.remove(id)
}
