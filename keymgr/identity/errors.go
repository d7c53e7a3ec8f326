// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package identity

import "errors"

var (
	// ErrNoCertificate: no certificate was issued to this node yet.
	ErrNoCertificate = errors.New("no node certificate yet")
	// ErrNoGeneration: the WireGuard key generation does not exist on disk.
	ErrNoGeneration = errors.New("no such key generation")
)
