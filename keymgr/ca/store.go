// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca

import (
	"context"
	"maps"

	"github.com/sealane/sealane/keymgr/approval"
)

// Issuer issues certificates for the signer name. The Authority of this package is one; a
// CA elsewhere may be another.
type Issuer interface {
	// Issue returns the chain of a new certificate in DER: leaf first, root left out.
	Issue(ctx context.Context, order approval.Order) (chain [][]byte, err error)
	// Bundle returns the roots, in PEM, with which nodes verify each other.
	Bundle() []byte
}

// Names of an authority's files, as keys of a Secret.
const (
	FileRootCert         = "root.crt"
	FileRootKey          = "root.key"
	FileIntermediateCert = "intermediate.crt"
	FileIntermediateKey  = "intermediate.key"
	// FileRotation, FileNextRootCert, FileNextRootKey and FileOldRootCert exist during a
	// change of roots.
	FileRotation     = "rotation.json"
	FileNextRootCert = "next-root.crt"
	FileNextRootKey  = "next-root.key"
	FileOldRootCert  = "old-root.crt"
)

// Stored is the content of a Store.
type Stored struct {
	// Files holds PEM by file name; it is empty if nothing was stored yet.
	Files map[string][]byte
	// Version changes with each Save; "" if nothing was stored yet.
	Version string
}

// Store keeps an authority's certificates and private keys, for example in a Secret.
type Store interface {
	// Load returns what is stored. It is not an error if that is nothing.
	Load(ctx context.Context) (Stored, error)
	// Save replaces everything with next.Files if next.Version is still the stored
	// version. Otherwise it returns ErrConflict, so one of two racing writers fails.
	Save(ctx context.Context, next Stored) error
}

// clone returns a copy that can be written into, also of nil.
func clone(files map[string][]byte) map[string][]byte { return maps.Collect(maps.All(files)) }
