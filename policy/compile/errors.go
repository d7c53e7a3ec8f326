// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package compile

import "errors"

// ErrCollision: two different things have one number. The one that came later
// is left out, which denies what it would have allowed.
var ErrCollision = errors.New("two meanings for one number")
