// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// PortSpec is the ports of a rule, or of several: every port, ranges, and
// ports by name that are not resolved yet. Zero is no port.
type PortSpec struct {
	All    bool        // every port, and protocols without ports
	Ranges []Ports     // merged
	Named  []NamedPort // Port is 0
}

// Empty reports whether it is no port at all.
func (a PortSpec) Empty() bool { return !a.All && len(a.Ranges) == 0 && len(a.Named) == 0 }

// Union returns the ports of both.
func (a PortSpec) Union(b PortSpec) PortSpec {
	switch {
	case a.All || b.All:
		return PortSpec{All: true}
	case b.Empty():
		return a
	case a.Empty():
		return b
	}
	return PortSpec{Ranges: merge(slices.Concat(a.Ranges, b.Ranges)), Named: mergeNamed(slices.Concat(a.Named, b.Named))}
}

// Resolve replaces the ports by name with those of them that a pod has.
func (a PortSpec) Resolve(has []NamedPort) PortSpec {
	if len(a.Named) == 0 {
		return a
	}
	ranges := slices.Clone(a.Ranges)
	for _, p := range has {
		if slices.Contains(a.Named, NamedPort{Name: p.Name, Protocol: p.Protocol}) {
			ranges = append(ranges, Ports{p.Protocol, p.Port, p.Port})
		}
	}
	return PortSpec{Ranges: merge(ranges)}
}

// split parts what every peer may have from what depends on the peer's names.
func (a PortSpec) split() (numbers, names PortSpec) {
	return PortSpec{All: a.All, Ranges: a.Ranges}, PortSpec{Named: a.Named}
}

// Key is the canonical form.
func (a PortSpec) Key() string {
	if a.All {
		return "*"
	}
	var b strings.Builder
	for _, r := range a.Ranges {
		fmt.Fprintf(&b, " %d:%d-%d", r.Protocol, r.First, r.Last)
	}
	for _, n := range a.Named {
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
