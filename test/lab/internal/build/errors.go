// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package build

import "errors"

// ErrTarget means that no target has the name.
var ErrTarget = errors.New("unknown target")

// ErrMissing means that the machine lacks programs and the lab cannot install them.
var ErrMissing = errors.New("programs missing")
