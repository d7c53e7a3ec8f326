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
	"github.com/sealane/sealane/keymgr/extension"
	"github.com/sealane/sealane/keymgr/rootchange"
)

// material holds the certificates and keys that an authority works with. It does not
// change once it is in use.
type material struct {
	roots           []*x509.Certificate // the first one issues
	rootKey         crypto.Signer       // nil if offline, and once in use
	offline         bool                // of the root
	intermediate    *x509.Certificate
	intermediateKey crypto.Signer

	// State of a change of roots, if the authority creates its own.
	rotation rotation
	old      *x509.Certificate // while switched: what issued before
	next     *x509.Certificate // while announced: what will issue
	nextKey  crypto.Signer

	files map[string][]byte // to be stored
}

// forgetRootKeys drops the roots' keys from memory, where they stay only while needed.
func (m *material) forgetRootKeys() {
	m.offline = m.rootKey == nil
	m.rootKey, m.nextKey = nil, nil
	for name := range m.files {
		if isRootKey(name) {
			delete(m.files, name)
		}
	}
}

// trusted returns all roots, the oldest of the authority's own first.
func (m *material) trusted() []*x509.Certificate {
	all := slices.Clone(m.roots)
	if m.old != nil {
		all = slices.Insert(all, 0, m.old)
	}
	if m.next != nil {
		all = append(all, m.next)
	}
	return all
}

// bundle returns the trusted roots in PEM.
func (m *material) bundle() []byte {
	var ders [][]byte
	for _, r := range m.trusted() {
		ders = append(ders, r.Raw)
	}
	return keymgr.EncodeChain(ders)
}

// issuer signs for all nodes; above are the certificates above the intermediate.
func (m *material) issuer(above ...[]byte) keymgr.Issuer {
	return keymgr.Issuer{Key: m.intermediateKey, Chain: append([][]byte{m.intermediate.Raw}, above...)}
}

// put adds a new certificate and its key to the files to store.
func (m *material) put(certFile, keyFile string, cert *x509.Certificate, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode private key: %w", err)
	}
	m.files[certFile] = keymgr.EncodeChain([][]byte{cert.Raw})
	m.files[keyFile] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
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

// loadOwnRoots reads the root that the authority created and the state of a change of
// roots.
func (m *material) loadOwnRoots() (err error) {
	if m.rotation, err = parseRotation(m.files[FileRotation]); err != nil {
		return err
	}
	if err := m.loadRoot(m.files[FileRootCert], nil); err != nil {
		return err
	}
	if err := m.matchRootKey(); err != nil {
		return err
	}
	if m.rotation.Phase != rootchange.PhaseAnnounced { // a crash left it, or it is the root already
		delete(m.files, FileNextRootCert)
		delete(m.files, FileNextRootKey)
	}
	if m.rotation.Phase != rootchange.PhaseSwitched {
		delete(m.files, FileOldRootCert)
	}
	if m.old, err = m.readRoot(FileOldRootCert); err != nil {
		return err
	}
	if m.next, err = m.readRoot(FileNextRootCert); err != nil || m.next == nil {
		return err
	}
	if key := m.files[FileNextRootKey]; len(key) > 0 {
		if m.nextKey, err = parseKey(key, m.next); err != nil {
			return fmt.Errorf("%w: key of %s: %w", ErrRoot, m.next.Subject, err)
		}
	}
	return nil
}

func (m *material) readRoot(file string) (*x509.Certificate, error) {
	if len(m.files[file]) == 0 {
		return nil, nil
	}
	roots, err := keymgr.ParseBundle(m.files[file])
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrRoot, file, err)
	}
	return roots[0], nil
}

// matchRootKey finds the root's key. After a crash during a switch of roots, the file
// still has the name of the next root's key.
func (m *material) matchRootKey() error {
	key, err := m.files[FileRootKey], error(nil)
	if len(key) > 0 {
		if m.rootKey, err = parseKey(key, m.roots[0]); err == nil {
			return nil
		}
	}
	if next := m.files[FileNextRootKey]; len(next) > 0 {
		if found, nextErr := parseKey(next, m.roots[0]); nextErr == nil {
			m.rootKey, m.files[FileRootKey] = found, next
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("%w: key of %s: %w", ErrRoot, m.roots[0].Subject, err)
	}
	return nil
}

// checkRoot refuses a root that allows no issuing intermediate below it.
func checkRoot(c *x509.Certificate) error {
	if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return errors.New("its key usage does not allow it to sign certificates")
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
	mark := extension.NodeIssuer(true)
	return slices.ContainsFunc(c.UnhandledCriticalExtensions, mark.Id.Equal)
}
