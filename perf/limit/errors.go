// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package limit

import "errors"

// ErrAnswer means that wireguard-go did not accept its configuration.
var ErrAnswer = errors.New("unexpected answer")
