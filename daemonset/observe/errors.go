// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package observe

import "errors"

// ErrFilter says that a filter cannot be understood; the text names the flag and
// its value.
var ErrFilter = errors.New("bad filter")

// ErrUnreachable says that no daemon answers on the socket.
var ErrUnreachable = errors.New("no daemon answers")
