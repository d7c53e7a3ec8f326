// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package observe

import "errors"

// ErrFilter means that a filter is malformed; the text names the flag and its value.
var ErrFilter = errors.New("bad filter")

// ErrUnreachable means that no daemon answers on the socket.
var ErrUnreachable = errors.New("no daemon answers")
