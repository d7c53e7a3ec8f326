// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

// Keys of log attributes.
const (
	keyAnnotation = "annotation"
	keyError      = "error"
	keyMode       = "mode"
	keyNode       = "node"
	keyPhase      = "phase"
	keyReason     = "reason"
	keyRequest    = "request"
	keySerial     = "serial"
	keyUntil      = "until"
)
