// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package compile

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/sealane/sealane/policy"
)

// registry gives out the numbers of one kind of thing, and knows which
// canonical form each stands for.
type registry struct {
	kind    string // part of what is hashed: a set and a class never have one number by their form alone
	hash    func(string) policy.ID
	keys    map[policy.ID]string
	refused map[string]error // by canonical form
}

func newRegistry(kind string) registry {
	return registry{kind: kind, hash: sum, keys: map[policy.ID]string{}, refused: map[string]error{}}
}

func sum(canonical string) policy.ID {
	digest := sha256.Sum256([]byte(canonical))
	return policy.ID(binary.BigEndian.Uint64(digest[:8]))
}

// claim returns the number of a canonical form, or 0 if another has it. The
// numbers 0 and 1 have meanings of their own and count as taken.
func (r *registry) claim(key string) policy.ID {
	id := r.hash(r.kind + "\n" + key)
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

func (r *registry) release(key string, id policy.ID) {
	delete(r.refused, key)
	if id != 0 {
		delete(r.keys, id)
	}
}
