// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import "errors"

// ErrNotKnown says that a pod cannot be connected yet, because it is not known
// which policies select it. Trying again later helps.
var ErrNotKnown = errors.New("policy is not known yet")
