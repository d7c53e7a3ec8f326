// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package authority

import "errors"

// ErrConfig means that a setting cannot be used; the text names the flag, its
// value and the remedy.
var ErrConfig = errors.New("bad configuration")
