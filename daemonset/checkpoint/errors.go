// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package checkpoint

import "errors"

var (
	// ErrFormat says that a file is no picture, or one of another version.
	ErrFormat = errors.New("not a picture of the cluster")
	// ErrOther says that a picture, or this daemon's identity, is that of another
	// node, of an earlier life of this one, or of another cluster.
	ErrOther = errors.New("another node or cluster")
	// ErrFromDisk says that the daemon started from a picture and has not heard of
	// the API server since.
	ErrFromDisk = errors.New("the API server has been away since the daemon started, which follows what it last saw of the cluster")
)
