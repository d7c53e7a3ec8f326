// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/extension"
	"github.com/sealane/sealane/keymgr/keytest"
)

// certificate makes a certificate that ends after life, by hand; without issuer it
// signs itself.
func certificate(t *testing.T, template, issuer *x509.Certificate, key, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(int64(len(template.Subject.CommonName)) + 1)
	template.NotBefore = keytest.NewClock().Now().Add(-time.Hour)
	if issuer == nil {
		issuer = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// A signer elsewhere may issue certificates that outlive what is above them. When
// that ends, the statement ends, though it was verified before.
func TestAuthorityEndsBeforeLeaf(t *testing.T) {
	for name, days := range map[string][2]time.Duration{
		"the issuer first": {9, 2}, "the root first": {2, 9},
	} {
		t.Run(name, func(t *testing.T) {
			c := keytest.NewCluster(t)
			n := c.Node("a")
			nodeKey, _ := n.Identity.TLSCertificate()
			rootKey, issuerKey := newKey(t), newKey(t)
			end := func(days time.Duration) time.Time { return c.Clock.Now().Add(days * 24 * time.Hour) }
			authority := func(name string, days time.Duration) *x509.Certificate {
				return &x509.Certificate{
					Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, NotAfter: end(days),
					ExtraExtensions: []pkix.Extension{extension.NodeIssuer(false)},
				}
			}
			root := certificate(t, authority("root", days[0]), nil, rootKey, rootKey)
			issuer := certificate(t, authority("issuer", days[1]), root, issuerKey, rootKey)
			leaf := certificate(t, &x509.Certificate{
				URIs: []*url.URL{n.Live.ID.URI(keytest.TrustDomain)}, KeyUsage: x509.KeyUsageDigitalSignature,
				ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, NotAfter: end(9),
			}, issuer, nodeKey.PrivateKey.(*ecdsa.PrivateKey), issuerKey)
			signed := n.Sign()
			signed.Chain = [][]byte{leaf.Raw, issuer.Raw}

			v := c.Verifier("self")
			if err := v.SetRoots(keymgr.EncodeChain([][]byte{root.Raw})); err != nil {
				t.Fatal(err)
			}
			mustVerify(t, v, signed, n.Live)
			c.Clock.Add(48 * time.Hour)
			mustVerify(t, v, signed, n.Live)
			c.Clock.Add(time.Second)
			_, err := v.Verify(signed, n.Live)
			wantReason(t, err, keymgr.ErrChain)
		})
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestVerifyCertificate(t *testing.T) {
	c := keytest.NewCluster(t)
	n := c.Node("a", "10.244.1.0/24")
	chain := n.Sign().Chain
	got, err := keymgr.VerifyCertificate(chain, c.Authority.Bundle(), c.Clock.Now())
	if err != nil || got.Node != n.Live.ID || got.TrustDomain != keytest.TrustDomain || !slices.Equal(got.PodCIDRs, n.Live.PodCIDRs) {
		t.Errorf("VerifyCertificate gave %+v, %v", got, err)
	}
	for at, want := range map[time.Time]error{
		got.NotBefore: nil, got.NotAfter: nil,
		got.NotBefore.Add(-time.Second): keymgr.ErrNotYetValid, got.NotAfter.Add(time.Second): keymgr.ErrExpired,
	} {
		if _, err := keymgr.VerifyCertificate(chain, c.Authority.Bundle(), at); !errors.Is(err, want) {
			t.Errorf("at %v: error %v, want %v", at, err, want)
		}
	}
	if _, err := keymgr.VerifyCertificate(chain, nil, c.Clock.Now()); !errors.Is(err, keymgr.ErrBundle) {
		t.Errorf("without a bundle: error %v, want ErrBundle", err)
	}
}
