// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// allowance is the ports of a rule, or of several: every port, ranges, and
// ports by name that are not resolved yet.
type allowance struct {
	all    bool
	ranges []Ports     // merged
	named  []NamedPort // Port is 0
}

func (a allowance) empty() bool { return !a.all && len(a.ranges) == 0 && len(a.named) == 0 }

func (a allowance) union(b allowance) allowance {
	switch {
	case a.all || b.all:
		return allowance{all: true}
	case b.empty():
		return a
	case a.empty():
		return b
	}
	return allowance{ranges: merge(slices.Concat(a.ranges, b.ranges)), named: mergeNamed(slices.Concat(a.named, b.named))}
}

// resolve replaces the ports by name with those of them that a pod has.
func (a allowance) resolve(has []NamedPort) allowance {
	if len(a.named) == 0 {
		return a
	}
	ranges := slices.Clone(a.ranges)
	for _, p := range has {
		if slices.Contains(a.named, NamedPort{Name: p.Name, Protocol: p.Protocol}) {
			ranges = append(ranges, Ports{p.Protocol, p.Port, p.Port})
		}
	}
	return allowance{ranges: merge(ranges)}
}

// split parts what every peer may have from what depends on the peer's names.
func (a allowance) split() (numbers, names allowance) {
	return allowance{all: a.all, ranges: a.ranges}, allowance{named: a.named}
}

// key is the canonical form.
func (a allowance) key() string {
	if a.all {
		return "*"
	}
	var b strings.Builder
	for _, r := range a.ranges {
		fmt.Fprintf(&b, " %d:%d-%d", r.Protocol, r.First, r.Last)
	}
	for _, n := range a.named {
		fmt.Fprintf(&b, " %d:%q", n.Protocol, n.Name)
	}
	return b.String()
}

// merge sorts ranges, and makes one of those that overlap or touch.
func merge(ranges []Ports) []Ports {
	slices.SortFunc(ranges, func(a, b Ports) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
	merged := ranges[:0]
	for _, r := range ranges {
		if n := len(merged); n > 0 {
			last := &merged[n-1]
			if last.Protocol == r.Protocol && uint32(r.First) <= uint32(last.Last)+1 {
				last.Last = max(last.Last, r.Last)
				continue
			}
		}
		merged = append(merged, r)
	}
	return merged
}

func mergeNamed(named []NamedPort) []NamedPort {
	slices.SortFunc(named, func(a, b NamedPort) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Port, b.Port))
	})
	return slices.Compact(named)
}

// portBook counts who uses which set of ports.
type portBook struct {
	numbers registry
	table   ledger[ID, []Ports]
	byKey   map[string]*portSet
	byID    map[ID]*portSet
}

type portSet struct {
	key  string
	id   ID
	refs int
}

func newPortBook() portBook {
	table := ledger[ID, []Ports]{
		now: map[ID][]Ports{}, before: map[ID]entry[[]Ports]{},
		same: slices.Equal[[]Ports], order: cmp.Compare[ID],
	}
	return portBook{newRegistry("ports"), table, map[string]*portSet{}, map[ID]*portSet{}}
}

// acquire returns the number of a resolved allowance, until it is released as
// often.
func (b *portBook) acquire(a allowance) ID {
	switch {
	case a.all:
		return AllPorts
	case len(a.ranges) == 0:
		return NoPorts
	}
	key := a.key()
	set := b.byKey[key]
	if set == nil {
		set = &portSet{key: key, id: b.numbers.claim(key)}
		if set.id == NoPorts {
			return NoPorts // refused: allows nothing
		}
		b.byKey[key], b.byID[set.id] = set, set
		b.table.set(set.id, a.ranges)
	}
	set.refs++
	return set.id
}

func (b *portBook) release(id ID) {
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
