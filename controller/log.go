// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

// Keys of log attributes.
const (
	keyError = "error"
	keyMode  = "mode"
)
