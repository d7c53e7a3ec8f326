// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import "errors"

var (
	// ErrUp means that the lab is up already.
	ErrUp = errors.New("the lab is up")
	// ErrDown means that the lab is not up.
	ErrDown = errors.New("the lab is down")
	// ErrBusy means that another command is changing the lab.
	ErrBusy = errors.New("another command is changing the lab")
	// ErrDisk means that the state directory is in memory or on an overlay.
	ErrDisk = errors.New("not a real disk")
	// ErrDaemon means that a daemon runs which should not, or the other way round.
	ErrDaemon = errors.New("bad daemon")
	// ErrNode means that a node is unknown or exists already.
	ErrNode = errors.New("bad node")
	// ErrLate means that something did not come in time.
	ErrLate = errors.New("not there in time")
)
