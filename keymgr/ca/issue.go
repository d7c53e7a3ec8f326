// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/netip"
	"net/url"
	"time"

	"github.com/sealane/sealane/internal/times"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/ca/internal/template"
	"github.com/sealane/sealane/keymgr/extension"
)

// backdate makes new certificates valid for readers whose clock is behind.
const backdate = 5 * time.Minute

// leafSpec says what a node certificate holds.
type leafSpec struct {
	node      keymgr.NodeID
	key       *ecdsa.PublicKey
	podCIDRs  []netip.Prefix
	addresses []netip.Addr // named even if there is none: then none is the node's
	lifetime  time.Duration
}

// Issue implements Issuer. The certificate holds what the order says and nothing
// of the request but its public key.
func (a *Authority) Issue(_ context.Context, o approval.Order) ([][]byte, error) {
	if o.PublicKey() == nil || o.TrustDomain() != a.cfg.TrustDomain {
		return nil, fmt.Errorf("issue certificate for node %s: %w", o.Node(), ErrOrder)
	}
	m := a.current()
	spec := leafSpec{node: o.Node(), key: o.PublicKey(), podCIDRs: o.PodCIDRs(), addresses: o.Addresses(), lifetime: o.Lifetime()}
	leaf, err := a.issue(m, spec)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for node %s: %w", o.Node(), err)
	}
	return [][]byte{leaf, m.intermediate.Raw}, nil
}

func (a *Authority) issue(m material, s leafSpec) ([]byte, error) {
	tmpl, err := a.leaf(m, s)
	if err != nil {
		return nil, err
	}
	return x509.CreateCertificate(rand.Reader, tmpl, m.intermediate, s.key, m.intermediateKey)
}

// leaf returns the template of a node certificate. Without a subject, crypto/x509
// makes the subjectAltName critical (RFC 5280, 4.2.1.6).
func (a *Authority) leaf(m material, s leafSpec) (*x509.Certificate, error) {
	now := a.cfg.Clock()
	end := times.Earlier(now.Add(s.lifetime), times.Earlier(m.intermediate.NotAfter, m.roots[0].NotAfter))
	if end.Sub(now) < approval.MinLifetime {
		return nil, fmt.Errorf("%w: %s left until root or intermediate end, want %s", ErrLifetime, end.Sub(now), approval.MinLifetime)
	}
	serial, err := template.Serial()
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		NotBefore:             times.Later(now.Add(-backdate), m.intermediate.NotBefore),
		NotAfter:              end,
		URIs:                  []*url.URL{s.node.URI(a.cfg.TrustDomain)},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           template.BothSides(),
		BasicConstraintsValid: true,
		SignatureAlgorithm:    x509.ECDSAWithSHA256,
	}
	addresses, err := extension.Addresses(s.addresses)
	if err != nil {
		return nil, err
	}
	tmpl.ExtraExtensions = []pkix.Extension{addresses}
	if len(s.podCIDRs) == 0 {
		return tmpl, nil
	}
	pods, err := extension.PodCIDRs(s.podCIDRs)
	if err != nil {
		return nil, err
	}
	tmpl.ExtraExtensions = append(tmpl.ExtraExtensions, pods)
	return tmpl, nil
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
	tmpl, err := template.CA("Sealane root", &key.PublicKey)
	if err != nil {
		return nil, nil, err
	}
	tmpl.NotBefore, tmpl.NotAfter = now.Add(-backdate), now.Add(a.cfg.RootLifetime)
	tmpl.MaxPathLen = 1
	cert, err := create(tmpl, tmpl, key, key)
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
	tmpl, err := template.CA("Sealane node issuer", &key.PublicKey)
	if err != nil {
		return err
	}
	now := a.cfg.Clock()
	tmpl.NotBefore = times.Later(now.Add(-backdate), m.roots[0].NotBefore)
	tmpl.NotAfter = a.intermediateEnd(*m, now)
	tmpl.MaxPathLenZero = true
	tmpl.ExtKeyUsage = template.BothSides()
	template.Constrain(tmpl, a.cfg.TrustDomain)
	tmpl.ExtraExtensions = []pkix.Extension{extension.NodeIssuer(a.cfg.Root.Shared)}
	cert, err := create(tmpl, m.roots[0], key, m.rootKey)
	if err != nil {
		return fmt.Errorf("make intermediate: %w", err)
	}
	m.intermediate, m.intermediateKey = cert, key
	return m.put(FileIntermediateCert, FileIntermediateKey, cert, key)
}

func (a *Authority) intermediateEnd(m material, now time.Time) time.Time {
	return times.Earlier(now.Add(a.cfg.IntermediateLifetime), m.roots[0].NotAfter)
}

// prove issues a certificate for a node that does not exist and verifies it. A root that
// cannot serve thus shows at the start, not at the first node.
func (a *Authority) prove(m *material) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	probe := leafSpec{
		node: keymgr.NodeID{Name: "probe", UID: "probe"}, key: &key.PublicKey, lifetime: approval.MinLifetime,
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

func create(tmpl, parent *x509.Certificate, key *ecdsa.PrivateKey, signer any) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
