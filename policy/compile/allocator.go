// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package compile

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// allocator gives out the numbers of one kind of thing, and knows which
// canonical form each stands for.
type allocator[ID ~uint64] struct {
	kind    string // part of what is hashed: a set and a group never have one number by their form alone
	hash    func(string) uint64
	keys    map[ID]string
	refused map[string]error // by canonical form
}

func newAllocator[ID ~uint64](kind string) allocator[ID] {
	return allocator[ID]{kind: kind, hash: sum, keys: map[ID]string{}, refused: map[string]error{}}
}

func sum(canonical string) uint64 {
	digest := sha256.Sum256([]byte(canonical))
	return binary.BigEndian.Uint64(digest[:8])
}

// claim returns the number of a canonical form, or 0 if another has it. The
// numbers 0 and 1 have meanings of their own and count as taken.
func (r *allocator[ID]) claim(key string) ID {
	id := ID(r.hash(r.kind + "\n" + key))
	owner, taken := r.keys[id]
	if id <= 1 || taken && owner != key {
		r.refused[key] = fmt.Errorf("number %s %q: %w: %#x is that of %q; change a label or a policy of one of them",
			r.kind, key, ErrCollision, uint64(id), owner)
		return 0
	}
	r.keys[id] = key
	delete(r.refused, key)
	return id
}

func (r *allocator[ID]) release(key string, id ID) {
	delete(r.refused, key)
	if id != 0 {
		delete(r.keys, id)
	}
}
