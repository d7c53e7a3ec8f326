// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package authority

// Keys of log attributes.
const (
	keyAnnotation = "annotation"
	keyError      = "error"
	keyPhase      = "phase"
	keySerial     = "serial"
	keyUntil      = "until"
)
