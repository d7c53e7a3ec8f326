// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policy

import "errors"

// ErrMalformed: a part of a NetworkPolicy cannot be understood. The policy
// isolates what it selects all the same, and that part allows nothing.
var ErrMalformed = errors.New("malformed policy")
