// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ipam

import "errors"

var (
	// ErrExhausted means that a prefix has no free address.
	ErrExhausted = errors.New("no free address")
	// ErrPrefix means that a prefix cannot serve pods.
	ErrPrefix = errors.New("unusable pod prefix")
	// ErrNoPrefix means that the node has no pod prefix (yet).
	ErrNoPrefix = errors.New("node has no pod prefix")
	// ErrLease means that stored data is not a lease.
	ErrLease = errors.New("invalid lease")
	// ErrOwner means that an owner lacks a container or an interface name.
	ErrOwner = errors.New("invalid owner")
)
