// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package overlaytest makes verified peer keys for tests. Like all others they come from
// keymgr.Verify, signed under a certificate authority that lives as long as the test; there
// is no side door.
package overlaytest

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/extension"
)

const trustDomain = "11111111-2222-3333-4444-555555555555"

// Authority signs node certificates of one cluster.
type Authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

// Key describes a WireGuard key of a node.
type Key struct {
	ID         keymgr.NodeID
	Generation uint64
	Public     keymgr.PublicKey
	BasePort   uint16
}

// NewAuthority makes a root that issues node certificates.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{key: newECDSA(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test root"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		ExtraExtensions: []pkix.Extension{extension.NodeIssuer(false)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pem = keymgr.EncodeChain([][]byte{der})
	return a
}

// Verify signs a statement with the keys, which belong to one node and have consecutive
// generations, and returns the keys as a peer's verifier accepts them.
func (a *Authority) Verify(t testing.TB, keys ...Key) []keymgr.PeerKey {
	t.Helper()
	id, endpoint := keys[0].ID, netip.MustParseAddr("192.0.2.1")
	now := time.Now()
	s := keymgr.Statement{
		Type: keymgr.StatementType, TrustDomain: trustDomain, NodeName: id.Name, NodeUID: id.UID,
		Seq: 1, IssuedAt: now, NotAfter: now.Add(time.Minute), Endpoints: []netip.Addr{endpoint}, PSK: keymgr.PSKOff,
		PodCIDRs: []netip.Prefix{},
	}
	for _, k := range keys {
		s.Keys = append(s.Keys, keymgr.StatementKey{
			Generation: k.Generation, Key: k.Public, NotBefore: now, NotAfter: now.Add(time.Minute),
			Ports: keymgr.Ports{keymgr.Port(k.BasePort, k.Generation, 0), keymgr.Port(k.BasePort, k.Generation, 1)},
		})
	}
	v, err := keymgr.NewVerifier(keymgr.VerifierConfig{
		TrustDomain: trustDomain, Self: keymgr.NodeID{Name: "overlaytest-verifier", UID: "overlaytest-verifier"},
	})
	if err == nil {
		err = v.SetRoots(a.pem)
	}
	if err != nil {
		t.Fatal(err)
	}
	p, err := v.Verify(a.sign(t, s), keymgr.LiveNode{ID: id, Addresses: s.Endpoints})
	if err != nil {
		t.Fatal(err)
	}
	return p.Keys
}

func (a *Authority) sign(t testing.TB, s keymgr.Statement) keymgr.Signed {
	t.Helper()
	payload, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	key := newECDSA(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, URIs: []*url.URL{s.ID().URI(trustDomain)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(append([]byte("sealane-nodekey-v1\x00"), payload...))
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return keymgr.Signed{Payload: payload, Signature: signature, Chain: [][]byte{der}}
}

// PrivateKey returns a WireGuard private key; the same name always gives the same key.
func PrivateKey(name string) keymgr.PrivateKey { return sha256.Sum256([]byte(name)) }

// PublicKey returns the public key that belongs to PrivateKey(name).
func PublicKey(t testing.TB, name string) keymgr.PublicKey {
	t.Helper()
	private := PrivateKey(name)
	k, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		t.Fatal(err)
	}
	return keymgr.PublicKey(k.PublicKey().Bytes())
}

func newECDSA(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
