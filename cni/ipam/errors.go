// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ipam

import "errors"

var (
	// ErrExhausted says that a prefix has no address left to give.
	ErrExhausted = errors.New("no free address")
	// ErrPrefix says that a prefix cannot serve pods.
	ErrPrefix = errors.New("unusable pod prefix")
	// ErrNoPrefix says that the node has no pod prefix (yet).
	ErrNoPrefix = errors.New("node has no pod prefix")
	// ErrLease says that stored data is not a lease.
	ErrLease = errors.New("invalid lease")
	// ErrOwner says that an owner lacks a container or an interface name.
	ErrOwner = errors.New("invalid owner")
)
