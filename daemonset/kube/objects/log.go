// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package objects

// Keys of log attributes.
const (
	keyPod     = "pod"
	keyNode    = "node"
	keyAddress = "address"
	keyRanges  = "ranges"
)
