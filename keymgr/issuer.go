// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/sealane/sealane/internal/times"
	"github.com/sealane/sealane/keymgr/extension"
)

// IssuerContext separates the texts that an issuing CA signs from each other and from
// certificates, which begin with another byte.
type IssuerContext string

// What an issuing CA signs beside certificates.
const (
	contextRevocations IssuerContext = "sealane-revocations-v1\x00"
	// ContextBundle is for the trust bundle; see package keymgr/bundle.
	ContextBundle IssuerContext = "sealane-trust-bundle-v1\x00"
)

const maxIssuerSignature = 1 << 10 // an RSA key of 8192 bits

// Issuer is an issuing CA that signs for all nodes.
type Issuer struct {
	Key crypto.Signer
	// Chain begins with the CA's certificate (DER).
	Chain [][]byte
}

// Sign signs a payload.
func (i Issuer) Sign(context IssuerContext, payload []byte) (Signed, error) {
	message, options := context.message(payload), crypto.SignerOpts(crypto.SHA256)
	if _, whole := i.Key.Public().(ed25519.PublicKey); whole {
		options = crypto.Hash(0)
	} else {
		hash := sha256.Sum256(message)
		message = hash[:]
	}
	signature, err := i.Key.Sign(rand.Reader, message, options)
	if err != nil {
		return Signed{}, err
	}
	return Signed{Payload: payload, Signature: signature, Chain: slices.Clone(i.Chain)}, nil
}

// message is what is signed, before it is hashed.
func (c IssuerContext) message(payload []byte) []byte { return append([]byte(c), payload...) }

// IssuerScene is what the signature of an issuing CA is verified against.
type IssuerScene struct {
	Roots       *x509.CertPool
	TrustDomain string
	At          time.Time
}

// Verify checks that an issuer of node certificates of the trust domain has signed the
// payload in this context.
func (scene IssuerScene) Verify(context IssuerContext, s Signed) error {
	if n := len(s.Signature); n > maxIssuerSignature {
		return fmt.Errorf("%w: signature of %d bytes, at most %d", ErrTooLarge, n, maxIssuerSignature)
	}
	issuer, err := verifyIssuer(s.Chain, scene)
	if err != nil {
		return err
	}
	if err := issuer.CheckSignature(issuerAlgorithm(issuer), context.message(s.Payload), s.Signature); err != nil {
		return fmt.Errorf("%w: issuer %s: %w", ErrSignature, issuer.Subject, err)
	}
	return nil
}

// CheckNumber refuses a number that grows with the clock, in Unix milliseconds, if it is
// further in the future than clocks may differ: it would bar all that come after it.
func CheckNumber(number uint64, now time.Time) error {
	if limit := uint64(max(now.Add(ClockSkew).UnixMilli(), 0)); number > limit {
		return fmt.Errorf("%w: number %d, at most %d: set the clock of this node (%s) or of the writer right", ErrClock, number, limit, times.Stamp(now))
	}
	return nil
}

// verifyIssuer checks that a chain belongs to a CA that issues node certificates of the
// trust domain, and returns that CA's certificate. The issuer may begin in the reader's
// future, because a reader whose clock is behind must still learn who is revoked.
func verifyIssuer(chain [][]byte, scene IssuerScene) (*x509.Certificate, error) {
	certs, err := parseChain(chain)
	if err != nil {
		return nil, err
	}
	issuer := certs[0]
	opts := x509.VerifyOptions{
		Roots:         scene.Roots,
		Intermediates: x509.NewCertPool(),
		CurrentTime:   times.Later(scene.At.Add(-ClockSkew), issuer.NotBefore),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	for _, c := range certs[1:] {
		opts.Intermediates.AddCert(c)
	}
	found, err := issuer.Verify(opts)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrChain, err)
	}
	if !issuer.BasicConstraintsValid || !issuer.IsCA || !extension.MarksNodeIssuer(issuer) {
		return nil, fmt.Errorf("%w: signer %s is no issuer of node certificates", ErrCertificate, issuer.Subject)
	}
	if !slices.ContainsFunc(found, func(c []*x509.Certificate) bool { return permits(c, scene.TrustDomain) }) {
		return nil, fmt.Errorf("%w: issuer %s is constrained to others than %q", ErrTrustDomain, issuer.Subject, scene.TrustDomain)
	}
	return issuer, nil
}

// permits reports whether the name constraints of a chain permit nodes of a trust domain.
// The issuer of one cluster thus cannot revoke in another that has the same root.
func permits(chain []*x509.Certificate, trustDomain string) bool {
	return !slices.ContainsFunc(chain, func(c *x509.Certificate) bool {
		return len(c.PermittedURIDomains) > 0 && !slices.Contains(c.PermittedURIDomains, trustDomain) ||
			slices.Contains(c.ExcludedURIDomains, trustDomain)
	})
}

func issuerAlgorithm(issuer *x509.Certificate) x509.SignatureAlgorithm {
	switch issuer.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return x509.ECDSAWithSHA256
	case *rsa.PublicKey:
		return x509.SHA256WithRSA
	case ed25519.PublicKey:
		return x509.PureEd25519
	}
	return x509.UnknownSignatureAlgorithm
}
