// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package compile

import (
	"cmp"
	"slices"

	"github.com/sealane/sealane/policy"
)

// portIndex counts who uses which set of ports.
type portIndex struct {
	numbers allocator[policy.PortsID]
	table   delta[policy.PortsID, []policy.Ports]
	byKey   map[string]*portSet
	byID    map[policy.PortsID]*portSet
}

type portSet struct {
	key  string
	id   policy.PortsID
	refs int
}

func newPortIndex() portIndex {
	table := delta[policy.PortsID, []policy.Ports]{
		now: map[policy.PortsID][]policy.Ports{}, before: map[policy.PortsID]entry[[]policy.Ports]{},
		same: slices.Equal[[]policy.Ports], order: cmp.Compare[policy.PortsID],
	}
	return portIndex{newAllocator[policy.PortsID]("ports"), table, map[string]*portSet{}, map[policy.PortsID]*portSet{}}
}

// acquire returns the number of a resolved policy.PortSpec, until it is released as
// often.
func (b *portIndex) acquire(a policy.PortSpec) policy.PortsID {
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

func (b *portIndex) release(id policy.PortsID) {
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
