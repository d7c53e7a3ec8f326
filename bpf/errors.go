// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import "errors"

var (
	// ErrNotBPFFS means that the pin folder is not on a bpffs.
	ErrNotBPFFS = errors.New("not a bpf file system")
	// ErrFull means that a table of the data path has no room for another entry. Traffic
	// whose entry is missing is not allowed.
	ErrFull = errors.New("table is full")
)
