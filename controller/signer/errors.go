// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package signer

import "errors"

// ErrRevocationsUnknown means that nothing can be signed yet, because the list
// of revoked nodes has not been read.
var ErrRevocationsUnknown = errors.New("waiting to learn which nodes are revoked")
