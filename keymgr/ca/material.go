// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/sealane/sealane/keymgr"
)

// material is the certificates and keys that an authority works with. It is not
// changed once it is in use.
type material struct {
	roots           []*x509.Certificate // the first one issues
	rootKey         crypto.Signer       // nil if offline
	intermediate    *x509.Certificate
	intermediateKey crypto.Signer

	files   map[string][]byte // as stored, or to be stored if changed
	changed bool
}

// bundle returns the roots in PEM.
func (m *material) bundle() []byte {
	ders := make([][]byte, 0, len(m.roots))
	for _, r := range m.roots {
		ders = append(ders, r.Raw)
	}
	return keymgr.EncodeChain(ders)
}

// put adds a new certificate and its key to what is to be stored.
func (m *material) put(certFile, keyFile string, cert *x509.Certificate, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode private key: %w", err)
	}
	m.files[certFile] = keymgr.EncodeChain([][]byte{cert.Raw})
	m.files[keyFile] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	m.changed = true
	return nil
}

func (m *material) loadRoot(certs, key []byte) error {
	roots, err := keymgr.ParseBundle(certs)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRoot, err)
	}
	if err := checkRoot(roots[0]); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrRoot, roots[0].Subject, err)
	}
	m.roots = roots
	if len(key) == 0 {
		return nil
	}
	if m.rootKey, err = parseKey(key, roots[0]); err != nil {
		return fmt.Errorf("%w: key of %s: %w", ErrRoot, roots[0].Subject, err)
	}
	return nil
}

// checkRoot refuses a root below which no intermediate could issue.
func checkRoot(c *x509.Certificate) error {
	if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return errors.New("its key usage does not allow to sign certificates")
	}
	if c.MaxPathLen == 0 && c.MaxPathLenZero {
		return errors.New("its path length 0 allows no intermediate; use one with path length 1 or more")
	}
	return nil
}

func (m *material) loadIntermediate(cert, key []byte) error {
	certs, err := keymgr.ParseBundle(cert)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrIntermediate, err)
	}
	if len(certs) != 1 {
		return fmt.Errorf("%w: %d certificates, want 1", ErrIntermediate, len(certs))
	}
	m.intermediate = certs[0]
	if m.intermediateKey, err = parseKey(key, certs[0]); err != nil {
		return fmt.Errorf("%w: key of %s: %w", ErrIntermediate, certs[0].Subject, err)
	}
	return nil
}

// parseKey reads a private key in PEM and checks that it is the certificate's.
func parseKey(data []byte, cert *x509.Certificate) (crypto.Signer, error) {
	block, rest := pem.Decode(data)
	if block != nil && block.Type == "EC PARAMETERS" { // openssl ecparam -genkey writes them first
		block, _ = pem.Decode(rest)
	}
	if block == nil {
		return nil, errors.New("not PEM")
	}
	parsed, err := parseKeyDER(block)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign", parsed)
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(cert.PublicKey) {
		return nil, errors.New("it does not belong to the certificate")
	}
	return key, nil
}

func parseKeyDER(block *pem.Block) (any, error) {
	switch block.Type {
	case "PRIVATE KEY":
		return x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		return x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		return x509.ParseECPrivateKey(block.Bytes)
	}
	return nil, fmt.Errorf("PEM block %q, want an unencrypted PRIVATE KEY", block.Type)
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return key, nil
}

func criticalMark(c *x509.Certificate) bool {
	mark := keymgr.NodeIssuerExtension(true)
	return slices.ContainsFunc(c.UnhandledCriticalExtensions, mark.Id.Equal)
}
