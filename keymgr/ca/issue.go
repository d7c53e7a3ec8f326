// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"

	"github.com/sealane/sealane/internal/times"
	"github.com/sealane/sealane/keymgr"
)

// backdate makes new certificates valid for readers whose clock is behind.
const backdate = 5 * time.Minute

// Issue implements Issuer. The certificate holds what the order says and nothing
// of the request but its public key.
func (a *Authority) Issue(_ context.Context, o Order) ([][]byte, error) {
	m := a.current()
	leaf, err := a.issue(m, o)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for node %s: %w", o.node, err)
	}
	return [][]byte{leaf, m.intermediate.Raw}, nil
}

func (a *Authority) issue(m material, o Order) ([]byte, error) {
	if o.key == nil || o.trustDomain != a.cfg.TrustDomain {
		return nil, ErrOrder
	}
	template, err := a.leaf(m, o)
	if err != nil {
		return nil, err
	}
	return x509.CreateCertificate(rand.Reader, template, m.intermediate, o.key, m.intermediateKey)
}

// leaf returns the template of a node certificate. Without a subject, crypto/x509
// makes the subjectAltName critical (RFC 5280, 4.2.1.6).
func (a *Authority) leaf(m material, o Order) (*x509.Certificate, error) {
	now := a.cfg.Clock()
	end := times.Earlier(now.Add(o.lifetime), times.Earlier(m.intermediate.NotAfter, m.roots[0].NotAfter))
	if end.Sub(now) < MinLifetime {
		return nil, fmt.Errorf("%w: %s left until root or intermediate end, want %s", ErrLifetime, end.Sub(now), MinLifetime)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		NotBefore:             times.Later(now.Add(-backdate), m.intermediate.NotBefore),
		NotAfter:              end,
		URIs:                  []*url.URL{o.node.URI(o.trustDomain)},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           bothSides(),
		BasicConstraintsValid: true,
		SignatureAlgorithm:    x509.ECDSAWithSHA256,
	}
	if len(o.podCIDRs) == 0 {
		return template, nil
	}
	ext, err := keymgr.PodCIDRExtension(o.podCIDRs)
	if err != nil {
		return nil, err
	}
	template.ExtraExtensions = []pkix.Extension{ext}
	return template, nil
}

// makeRoot creates the authority's first own root.
func (a *Authority) makeRoot(m *material) error {
	cert, key, err := a.newRoot()
	if err != nil {
		return err
	}
	m.roots, m.rootKey = []*x509.Certificate{cert}, key
	return m.put(FileRootCert, FileRootKey, cert, key)
}

func (a *Authority) newRoot() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	now := a.cfg.Clock()
	template, err := newCA("Sealane root", key)
	if err != nil {
		return nil, nil, err
	}
	template.NotBefore, template.NotAfter = now.Add(-backdate), now.Add(a.cfg.RootLifetime)
	template.MaxPathLen = 1
	cert, err := create(template, template, key, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make root: %w", err)
	}
	return cert, key, nil
}

// makeIntermediate creates an intermediate that can issue node certificates of this trust
// domain and nothing else: no further CA, no other kind of name.
func (a *Authority) makeIntermediate(m *material) error {
	if m.rootKey == nil {
		return fmt.Errorf("%w: provide an intermediate, or the root key for once", ErrRootOffline)
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	template, err := newCA("Sealane node issuer", key)
	if err != nil {
		return err
	}
	now := a.cfg.Clock()
	template.NotBefore = times.Later(now.Add(-backdate), m.roots[0].NotBefore)
	template.NotAfter = a.intermediateEnd(*m, now)
	template.MaxPathLenZero = true
	template.ExtKeyUsage = bothSides()
	constrain(template, a.cfg.TrustDomain)
	template.ExtraExtensions = []pkix.Extension{keymgr.NodeIssuerExtension(a.cfg.Root.Shared)}
	cert, err := create(template, m.roots[0], key, m.rootKey)
	if err != nil {
		return fmt.Errorf("make intermediate: %w", err)
	}
	m.intermediate, m.intermediateKey = cert, key
	return m.put(FileIntermediateCert, FileIntermediateKey, cert, key)
}

func (a *Authority) intermediateEnd(m material, now time.Time) time.Time {
	return times.Earlier(now.Add(a.cfg.IntermediateLifetime), m.roots[0].NotAfter)
}

// constrain permits URIs of the trust domain and forbids every other kind of name
// that crypto/x509 knows (RFC 5280, 4.2.1.10). The subject cannot be constrained
// so: crypto/x509 has no constraints on directory names.
func constrain(template *x509.Certificate, trustDomain string) {
	template.PermittedDNSDomainsCritical = true // of the extension as a whole
	template.PermittedURIDomains = []string{trustDomain}
	template.ExcludedDNSDomains = []string{""}
	template.ExcludedEmailAddresses = []string{""}
	template.ExcludedIPRanges = []*net.IPNet{
		{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
		{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
	}
}

// prove issues a certificate for a node that does not exist and verifies it. A root that
// cannot serve thus shows at the start, not at the first node.
func (a *Authority) prove(m *material) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	probe := Order{
		node: keymgr.NodeID{Name: "probe", UID: "probe"}, trustDomain: a.cfg.TrustDomain,
		key: &key.PublicKey, lifetime: MinLifetime,
	}
	leaf, err := a.issue(*m, probe)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrIntermediate, err)
	}
	_, err = keymgr.VerifyCertificate([][]byte{leaf, m.intermediate.Raw}, m.bundle(), a.cfg.Clock())
	if err != nil {
		return fmt.Errorf("%w: what it issues does not verify: %w", ErrIntermediate, err)
	}
	return nil
}

// newCA returns a template whose name is unique to the key.
func newCA(name string, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	hash := sha256.Sum256(der)
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: fmt.Sprintf("%s %x", name, hash[:4])},
		SubjectKeyId:          hash[:20],
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}, nil
}

func create(template, parent *x509.Certificate, key *ecdsa.PrivateKey, signer any) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// newSerial returns 128 random bits, never 0.
func newSerial() (*big.Int, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, fmt.Errorf("generate serial number: %w", err)
	}
	serial := new(big.Int).SetBytes(b[:])
	return serial.Add(serial, big.NewInt(1)), nil
}

func bothSides() []x509.ExtKeyUsage {
	return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
}
