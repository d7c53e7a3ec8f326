// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package overlay

import "errors"

var (
	// ErrConfig says that a field of Config cannot be used; the text names it.
	ErrConfig = errors.New("invalid overlay configuration")
	// ErrPlaintext refuses a lane without encryption that nobody asked for in so many words.
	ErrPlaintext = errors.New("lanes of kind vxlan are not encrypted: choose kind wireguard, or allow it with --insecure-plaintext")
)
