// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"errors"

	"github.com/sealane/sealane/controller/authority"
)

// ErrConfig is [authority.ErrConfig]: a setting cannot be used, and the text names
// the flag, its value and the remedy.
var ErrConfig = authority.ErrConfig

var errListing = errors.New("waiting for the first lists of requests, nodes, nodekeys, revocations and the trust bundle")
