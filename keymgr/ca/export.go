// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"github.com/sealane/sealane/keymgr"
)

const maxExport = 64 << 10

// ExportRoot returns the root with its key, as one PEM file, from the store that keeps
// it. It changes nothing: verify the written file with ParseExport, then call
// RemoveRootKey.
func ExportRoot(ctx context.Context, roots Store) ([]byte, error) {
	stored, err := roots.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("export root: %w", err)
	}
	if err := exportable(stored); err != nil {
		return nil, fmt.Errorf("export root: %w", err)
	}
	data := join(stored.Files[FileRootCert], stored.Files[FileRootKey])
	if _, err := ParseExport(data); err != nil {
		return nil, fmt.Errorf("export root: %w", err)
	}
	return data, nil
}

func exportable(stored Stored) error {
	switch {
	case len(stored.Files) == 0:
		return fmt.Errorf("%w: there is none; has the controller run?", ErrExport)
	case len(stored.Files[FileNextRootKey]) > 0:
		return fmt.Errorf("%w: a change of roots is under way; wait for its end", ErrExport)
	case len(stored.Files[FileRootKey]) == 0:
		return fmt.Errorf("%w: it was exported before", ErrRootOffline)
	}
	return nil
}

// RemoveRootKey removes the root's key from its store if it is the one in an export.
func RemoveRootKey(ctx context.Context, roots Store, export []byte) error {
	stored, err := roots.Load(ctx)
	if err != nil {
		return fmt.Errorf("remove root key: %w", err)
	}
	if err := exportable(stored); err != nil {
		return fmt.Errorf("remove root key: %w", err)
	}
	if !bytes.Equal(export, join(stored.Files[FileRootCert], stored.Files[FileRootKey])) {
		return fmt.Errorf("remove root key: %w: it is not the root that is stored", ErrExport)
	}
	delete(stored.Files, FileRootKey)
	if err := roots.Save(ctx, stored); err != nil {
		return fmt.Errorf("remove root key: %w", err)
	}
	return nil
}

// ImportRoot puts the key of an exported root back. The root must be the issuing one.
func ImportRoot(ctx context.Context, roots Store, export []byte) error {
	root, err := ParseExport(export)
	if err != nil {
		return fmt.Errorf("import root: %w", err)
	}
	stored, err := roots.Load(ctx)
	if err != nil {
		return fmt.Errorf("import root: %w", err)
	}
	have, err := keymgr.ParseBundle(stored.Files[FileRootCert])
	if err != nil {
		return fmt.Errorf("import root: %w: the stored root: %w", ErrExport, err)
	}
	if !have[0].Equal(root) {
		return fmt.Errorf("import root: %w: it is %s, but %s is the root now", ErrExport, root.Subject, have[0].Subject)
	}
	_, stored.Files[FileRootKey] = split(export)
	if err := roots.Save(ctx, stored); err != nil {
		return fmt.Errorf("import root: %w", err)
	}
	return nil
}

// ParseExport reads an exported root and checks that the key is the certificate's.
func ParseExport(data []byte) (*x509.Certificate, error) {
	if len(data) > maxExport {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrExport, len(data), maxExport)
	}
	cert, key := split(data)
	if len(cert) == 0 || len(key) == 0 {
		return nil, fmt.Errorf("%w: want one CERTIFICATE and one PRIVATE KEY in PEM", ErrExport)
	}
	roots, err := keymgr.ParseBundle(cert)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrExport, err)
	}
	if len(roots) != 1 {
		return nil, fmt.Errorf("%w: %d certificates, want 1", ErrExport, len(roots))
	}
	if _, err := parseKey(key, roots[0]); err != nil {
		return nil, fmt.Errorf("%w: key of %s: %w", ErrExport, roots[0].Subject, err)
	}
	return roots[0], nil
}

func join(cert, key []byte) []byte { return append(bytes.Clone(cert), key...) }

// split separates the certificates of a PEM file from its keys.
func split(data []byte) (certs, keys []byte) {
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return certs, keys
		}
		if block.Type == "CERTIFICATE" {
			certs = append(certs, pem.EncodeToMemory(block)...)
		} else {
			keys = append(keys, pem.EncodeToMemory(block)...)
		}
		data = rest
	}
}
