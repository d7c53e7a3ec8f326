// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import "errors"

var (
	// ErrNotBPFFS says that the pin folder is not on a bpffs.
	ErrNotBPFFS = errors.New("not a bpf file system")
	// ErrFull says that a table of the data path has no room for another entry.
	// What is not in a table is not allowed.
	ErrFull = errors.New("table is full")
)
