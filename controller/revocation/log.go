// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package revocation

// Keys of log attributes.
const (
	keyError  = "error"
	keyNode   = "node"
	keyReason = "reason"
)
