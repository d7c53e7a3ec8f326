// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package checkpoint

import "errors"

var (
	// ErrFormat says that a file is not a checkpoint, or is one of another version.
	ErrFormat = errors.New("not a checkpoint of the cluster")
	// ErrOther says that a checkpoint, or this daemon's identity, belongs to another
	// node, to an earlier node of the same name, or to another cluster.
	ErrOther = errors.New("another node or cluster")
	// ErrFromDisk says that the daemon started from a checkpoint and has not heard from
	// the API server since.
	ErrFromDisk = errors.New("the API server has been away since the daemon started, which follows what it last saw of the cluster")
)
