// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
)

// ParseBundle reads a PEM bundle of CA certificates. Text between the blocks is
// allowed, anything else than CA certificates is not, nor an empty bundle.
func ParseBundle(data []byte) ([]*x509.Certificate, error) {
	if len(data) > maxBundle {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrBundle, len(data), maxBundle)
	}
	var roots []*x509.Certificate
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		root, err := parseRoot(block)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(roots, root.Equal) {
			roots = append(roots, root)
		}
		data = rest
	}
	if bytes.Contains(data, []byte("-----BEGIN")) {
		return nil, fmt.Errorf("%w: a PEM block is cut short", ErrBundle)
	}
	if len(roots) == 0 || len(roots) > maxRoots {
		return nil, fmt.Errorf("%w: %d certificates, want 1 to %d", ErrBundle, len(roots), maxRoots)
	}
	return roots, nil
}

// HashBundle returns the hash by which nodes report the bundle that they verify
// with: over its certificates, whatever their order and the text around them.
func HashBundle(bundlePEM []byte) (Hash, error) {
	roots, err := ParseBundle(bundlePEM)
	if err != nil {
		return Hash{}, err
	}
	return hashRoots(roots), nil
}

func hashRoots(roots []*x509.Certificate) Hash {
	sums := make([]Hash, 0, len(roots))
	for _, r := range roots {
		sums = append(sums, sha256.Sum256(r.Raw))
	}
	slices.SortFunc(sums, func(a, b Hash) int { return bytes.Compare(a[:], b[:]) })
	h := sha256.New()
	for _, s := range sums {
		h.Write(s[:])
	}
	return Hash(h.Sum(nil))
}

func parsePool(bundlePEM []byte) (*x509.CertPool, error) {
	roots, err := ParseBundle(bundlePEM)
	if err != nil {
		return nil, err
	}
	return newPool(roots), nil
}

func newPool(roots []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	return pool
}

func parseRoot(block *pem.Block) (*x509.Certificate, error) {
	if block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%w: it holds a %s; only certificates belong there", ErrBundle, block.Type)
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	if !root.BasicConstraintsValid || !root.IsCA {
		return nil, fmt.Errorf("%w: %s is no CA certificate", ErrBundle, root.Subject)
	}
	return root, nil
}
