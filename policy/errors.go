// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policy

import "errors"

var (
	// ErrMalformed: a part of a NetworkPolicy cannot be understood. The policy
	// isolates what it selects all the same, and that part allows nothing.
	ErrMalformed = errors.New("malformed policy")
	// ErrCollision: two different things have one [ID]. The one that came later
	// is left out, which denies what it would have allowed.
	ErrCollision = errors.New("two meanings for one number")
)
