// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

// Keys of log attributes.
const (
	keyError  = "error"
	keyName   = "name"
	keyLeader = "leader"
)
