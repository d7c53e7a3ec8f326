// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package signer

// Keys of log attributes.
const (
	keyError   = "error"
	keyNode    = "node"
	keyReason  = "reason"
	keyRequest = "request"
	keySerial  = "serial"
	keyUntil   = "until"
)
