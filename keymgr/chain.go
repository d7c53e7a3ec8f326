// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sealane/sealane/internal/times"
	"github.com/sealane/sealane/keymgr/extension"
)

const (
	maxChain       = 5
	maxCertificate = 8 << 10
	maxBundle      = 256 << 10
	maxRoots       = 32
)

// EncodeChain writes certificates in DER as PEM blocks.
func EncodeChain(chain [][]byte) []byte {
	var b bytes.Buffer
	for _, der := range chain {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return b.Bytes()
}

// DecodeChain reads the PEM certificates of a chain, leaf first, into DER. The
// certificates themselves are not looked into.
func DecodeChain(data []byte) ([][]byte, error) {
	var chain [][]byte
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("decode certificate chain: it holds a %s", block.Type)
		}
		chain, data = append(chain, block.Bytes), rest
	}
	if len(chain) == 0 || len(bytes.TrimSpace(data)) != 0 {
		return nil, errors.New("decode certificate chain: not a list of PEM certificates")
	}
	return chain, nil
}

// NodeCertificate is what a node certificate says.
type NodeCertificate struct {
	CertificateInfo
	// TrustDomain and Node are what the certificate's URI names.
	TrustDomain string
	Node        NodeID
	// PodCIDRs are the pod ranges that the node may claim; empty means none.
	PodCIDRs []netip.Prefix
	// Addresses are the addresses that the node may claim; empty means none. NamesAddresses
	// is false if the certificate is of a version that did not name them.
	Addresses      []netip.Addr
	NamesAddresses bool

	key *ecdsa.PublicKey
	// chainEnd is when the first certificate above the leaf expires.
	chainEnd time.Time
}

// IsFor reports whether the certificate is for a public key.
func (c *NodeCertificate) IsFor(key *ecdsa.PublicKey) bool { return c.key.Equal(key) }

// Covers reports whether p lies within one of the certificate's pod ranges.
func (c *NodeCertificate) Covers(p netip.Prefix) bool { return covered(p, c.PodCIDRs) }

// VerifyChain checks the chain of a node certificate (DER, leaf first) against a
// bundle and returns its leaf. It does not check that the leaf is valid now, because
// the caller knows which clock skew and grace apply: the chain is judged at the moment
// of the leaf's life that is nearest to now.
func VerifyChain(chain [][]byte, bundlePEM []byte, now time.Time) (*NodeCertificate, error) {
	pool, err := parsePool(bundlePEM)
	if err != nil {
		return nil, err
	}
	return verifyChain(chain, pool, now)
}

// verifyChain is VerifyChain with roots that were read before.
func verifyChain(chain [][]byte, roots *x509.CertPool, now time.Time) (*NodeCertificate, error) {
	certs, err := parseChain(chain)
	if err != nil {
		return nil, err
	}
	leaf := certs[0]
	opts := x509.VerifyOptions{
		Roots:         roots,
		Intermediates: x509.NewCertPool(),
		CurrentTime:   times.Clamp(now, leaf.NotBefore, leaf.NotAfter),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // checked in issuedForNodes
	}
	for _, c := range certs[1:] {
		opts.Intermediates.AddCert(c)
	}
	found, err := leaf.Verify(opts)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrChain, err)
	}
	i := slices.IndexFunc(found, issuedForNodes)
	if i < 0 {
		return nil, fmt.Errorf("%w: no issuer is marked for node certificates with client and server authentication", ErrCertificate)
	}
	return inspectLeaf(leaf, found[i][1:])
}

func parseChain(chain [][]byte) ([]*x509.Certificate, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return nil, fmt.Errorf("%w: %d certificates, want 1 to %d", ErrTooLarge, len(chain), maxChain)
	}
	certs := make([]*x509.Certificate, 0, len(chain))
	for _, der := range chain {
		if len(der) > maxCertificate {
			return nil, fmt.Errorf("%w: certificate of %d bytes, at most %d", ErrTooLarge, len(der), maxCertificate)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrChain, err)
		}
		// Our only critical extension; see extension.NodeIssuer.
		c.UnhandledCriticalExtensions = slices.DeleteFunc(c.UnhandledCriticalExtensions, extension.NodeIssuerID().Equal)
		certs = append(certs, c)
	}
	return certs, nil
}

// issuedForNodes reports whether the leaf's issuer carries the mark, and whether
// leaf and all above allow both client and server authentication.
func issuedForNodes(chain []*x509.Certificate) bool {
	if len(chain) < 2 || !extension.MarksNodeIssuer(chain[1]) || len(chain[0].ExtKeyUsage) == 0 {
		return false
	}
	return !slices.ContainsFunc(chain, func(c *x509.Certificate) bool {
		limited := len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) > 0
		return limited && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) &&
			!(slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) &&
				slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth))
	})
}

// inspectLeaf reads a node certificate and refuses one that no Sealane signer issues.
func inspectLeaf(leaf *x509.Certificate, above []*x509.Certificate) (*NodeCertificate, error) {
	key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: key is not ECDSA P-256", ErrCertificate)
	}
	if leaf.IsCA || leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return nil, fmt.Errorf("%w: want no CA and key usage digitalSignature", ErrCertificate)
	}
	if len(leaf.URIs) != 1 || len(leaf.DNSNames)+len(leaf.EmailAddresses)+len(leaf.IPAddresses) > 0 {
		return nil, fmt.Errorf("%w: want one URI and no other name", ErrCertificate)
	}
	td, id, err := ParseURI(leaf.URIs[0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	n := &NodeCertificate{CertificateInfo: infoOf(leaf), TrustDomain: td, Node: id, key: key, chainEnd: above[0].NotAfter}
	for _, c := range above {
		n.chainEnd = times.Earlier(n.chainEnd, c.NotAfter)
	}
	for _, e := range leaf.Extensions {
		switch {
		case e.Id.Equal(extension.PodCIDRsID()):
			n.PodCIDRs, err = extension.ParsePodCIDRs(e.Value)
		case e.Id.Equal(extension.AddressesID()):
			n.NamesAddresses = true
			n.Addresses, err = extension.ParseAddresses(e.Value)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCertificate, err)
		}
	}
	return n, nil
}

// ReadChain reads the leaf of a chain (DER, leaf first) and checks its form. It does
// not verify who signed it: VerifyChain does.
func ReadChain(chain [][]byte) (*NodeCertificate, error) {
	certs, err := parseChain(chain)
	if err != nil {
		return nil, err
	}
	if len(certs) < 2 {
		return nil, fmt.Errorf("%w: no issuer follows the certificate", ErrCertificate)
	}
	return inspectLeaf(certs[0], certs[1:])
}

// VerifyCertificate checks that the chain of a node certificate (DER, leaf first) leads to
// a root in a bundle and is valid at a time, to the second and without grace. The caller
// must compare whose certificate it is.
func VerifyCertificate(chain [][]byte, bundlePEM []byte, at time.Time) (NodeCertificate, error) {
	n, err := VerifyChain(chain, bundlePEM, at)
	if err != nil {
		return NodeCertificate{}, err
	}
	if at.Before(n.NotBefore) {
		return NodeCertificate{}, fmt.Errorf("%w: valid from %s", ErrNotYetValid, times.Stamp(n.NotBefore))
	}
	if at.After(n.NotAfter) {
		return NodeCertificate{}, fmt.Errorf("%w: %s", ErrExpired, times.Stamp(n.NotAfter))
	}
	return *n, nil
}

// ParseCertificateInfo reads what identifies a certificate in DER. It verifies nothing.
func ParseCertificateInfo(der []byte) (CertificateInfo, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return CertificateInfo{}, fmt.Errorf("parse certificate: %w", err)
	}
	return infoOf(c), nil
}

func infoOf(c *x509.Certificate) CertificateInfo {
	return CertificateInfo{
		Serial:    c.SerialNumber.Text(16),
		Issuer:    c.Issuer.String(),
		NotBefore: c.NotBefore,
		NotAfter:  c.NotAfter,
		SPKI:      sha256.Sum256(c.RawSubjectPublicKeyInfo),
	}
}
