// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/keytest"
)

// newOrder returns the approved request of node a for a new key. Without an expiration,
// the certificate is valid as long as the policy allows.
func newOrder(tb testing.TB, expiration time.Duration) approval.Order {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	live := keymgr.LiveNode{ID: keytest.ID("a"), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}
	template := &x509.CertificateRequest{URIs: []*url.URL{live.ID.URI(keytest.TrustDomain)}}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		tb.Fatal(err)
	}
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	request, policy, facts := keytest.Scene(csr, live, keytest.NewClock().Now())
	request.Expiration = expiration
	order, err := approval.Approve(request, policy, facts)
	if err != nil {
		tb.Fatal(err)
	}
	return order
}

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
