// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package trust

import "errors"

var (
	// ErrNoStatement is why a node without a NodeKey has no lane.
	ErrNoStatement = errors.New("has not published a key statement yet")
	// ErrNoBundle says that the cluster's controller has not made a CA yet.
	ErrNoBundle = errors.New("no trust bundle yet: is the sealane-controller running?")

	// errNoLanes says that this daemon has just started. Peers may learn of a key
	// only when this node's lanes are up to receive with it.
	errNoLanes = errors.New("waiting for this node's lanes")
)
