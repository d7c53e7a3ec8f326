// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca

import "errors"

// Errors of the authority.
var (
	// ErrConflict: a Store was changed since it was loaded; load again and retry.
	ErrConflict = errors.New("store changed meanwhile")
	// ErrRootOffline: only the root could do this, and its key is not here.
	ErrRootOffline = errors.New("root key is offline")
	// ErrRoot: the root certificate or key that the operator provided cannot serve.
	ErrRoot = errors.New("unusable root")
	// ErrRotation: the stored state of a change of roots cannot be understood.
	ErrRotation = errors.New("unusable rotation of roots")
	// ErrExport: a file or store with an exported root does not hold what it should.
	ErrExport = errors.New("unusable export of the root")
	// ErrIntermediate: the issuing intermediate cannot serve.
	ErrIntermediate = errors.New("unusable intermediate")
	// ErrLifetime: a lifetime is out of bounds.
	ErrLifetime = errors.New("invalid lifetime")
	// ErrOrder: an order that did not come from approval.Approve, or for another trust domain.
	ErrOrder = errors.New("order was not approved")
)
