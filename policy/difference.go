// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policy

import "slices"

// Difference gives the changes that make have into want.
func Difference(have, want Tables) Changes {
	var c Changes
	c.Set.Identities, c.Removed.Identities = difference(have.Identities, want.Identities)
	c.Set.Blocks, c.Removed.Blocks = difference(have.Blocks, want.Blocks)
	c.Set.Endpoints, c.Removed.Endpoints = difference(have.Endpoints, want.Endpoints)
	c.Set.Sets, c.Removed.Sets = difference(have.Sets, want.Sets)
	c.Set.Rules, c.Removed.Rules = difference(have.Rules, want.Rules)
	c.Set.Ports, c.Removed.Ports = differenceBy(have.Ports, want.Ports, slices.Equal)
	return c
}

func difference[K, V comparable](have, want map[K]V) (map[K]V, []K) {
	return differenceBy(have, want, func(a, b V) bool { return a == b })
}

func differenceBy[K comparable, V any](have, want map[K]V, equal func(a, b V) bool) (map[K]V, []K) {
	set, removed := map[K]V{}, []K(nil)
	for k, v := range want {
		if old, ok := have[k]; !ok || !equal(old, v) {
			set[k] = v
		}
	}
	for k := range have {
		if _, ok := want[k]; !ok {
			removed = append(removed, k)
		}
	}
	return set, removed
}
