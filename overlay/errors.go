// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package overlay

import "errors"

var (
	// ErrConfig means that a field of Config cannot be used; the text names the field.
	ErrConfig = errors.New("invalid overlay configuration")
	// ErrPlaintext refuses lanes without encryption that the operator has not explicitly
	// allowed.
	ErrPlaintext = errors.New("lanes of kind vxlan are not encrypted: choose kind wireguard, or allow it with --insecure-plaintext")
)
