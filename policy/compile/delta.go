// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package compile

import (
	"maps"
	"slices"
)

// delta is one map of [policy.Tables] and what of it has changed since it was last
// asked. It keeps how entries were, not what was done to them, so that what is
// undone in between is no change.
type delta[K comparable, V any] struct {
	now    map[K]V
	before map[K]entry[V]
	same   func(a, b V) bool
	order  func(a, b K) int
}

type entry[V any] struct {
	value   V
	present bool
}

func newDelta[K, V comparable](order func(a, b K) int) delta[K, V] {
	same := func(a, b V) bool { return a == b }
	return delta[K, V]{now: map[K]V{}, before: map[K]entry[V]{}, same: same, order: order}
}

func (l *delta[K, V]) remember(k K) {
	if _, known := l.before[k]; known {
		return
	}
	v, present := l.now[k]
	l.before[k] = entry[V]{v, present}
}

func (l *delta[K, V]) set(k K, v V) {
	if old, present := l.now[k]; present && l.same(old, v) {
		return
	}
	l.remember(k)
	l.now[k] = v
}

func (l *delta[K, V]) remove(k K) {
	if _, present := l.now[k]; !present {
		return
	}
	l.remember(k)
	delete(l.now, k)
}

// take returns what has changed since the last call.
func (l *delta[K, V]) take() (map[K]V, []K) {
	set := map[K]V{}
	var removed []K
	for k, old := range l.before {
		v, present := l.now[k]
		switch {
		case present && (!old.present || !l.same(old.value, v)):
			set[k] = v
		case !present && old.present:
			removed = append(removed, k)
		}
	}
	slices.SortFunc(removed, l.order)
	l.before = map[K]entry[V]{}
	return set, removed
}

func (l *delta[K, V]) all() map[K]V { return maps.Clone(l.now) }
