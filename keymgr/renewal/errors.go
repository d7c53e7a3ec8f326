// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package renewal

import "errors"

// ErrWindow says that a renewal window cannot be understood.
var ErrWindow = errors.New("invalid renewal window")
