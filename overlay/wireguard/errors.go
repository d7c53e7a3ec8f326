// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package wireguard

import "errors"

var (
	// ErrNoKey means that this node has no private key of a generation that the plan uses.
	ErrNoKey = errors.New("no private key")
	// ErrUnverified refuses a peer's key that did not come from keymgr's verification.
	ErrUnverified = errors.New("key was not verified")
	// ErrNoPresharedKey refuses a peer that must have a preshared key and has none.
	ErrNoPresharedKey = errors.New("no preshared key")
	// ErrKind refuses a plan for lanes of another kind.
	ErrKind = errors.New("not a plan for wireguard lanes")
)
