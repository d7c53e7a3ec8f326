// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package plan

import "errors"

var (
	// ErrOption means that an option or a name makes no sense.
	ErrOption = errors.New("bad option")
	// ErrDaemon means that no daemon has the name.
	ErrDaemon = errors.New("no such daemon")
)
