// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import "errors"

// Errors to test for with errors.Is, beside those of package kube.
var (
	// ErrNewer says that a newer statement is published already.
	ErrNewer = errors.New("a newer statement is published")
	// ErrFork says that another statement with the same sequence number is
	// published: two writers hold this node's key.
	ErrFork = errors.New("another statement with this sequence number is published")
)
