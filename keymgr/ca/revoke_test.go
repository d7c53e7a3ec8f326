// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/ca/memorystore"
	"github.com/sealane/sealane/keymgr/extension"
	"github.com/sealane/sealane/keymgr/keytest"
)

// revocations lists a node's certificates as revoked.
func revocations(t *testing.T, c *keytest.Cluster, n *keytest.Node) keymgr.RevocationList {
	t.Helper()
	info, ok := n.Identity.Certificate()
	if !ok {
		t.Fatal("the node has no certificate")
	}
	return keymgr.RevocationList{
		Type: keymgr.RevocationsType, TrustDomain: keytest.TrustDomain, Number: 1, IssuedAt: c.Clock.Now(),
		Nodes: []keymgr.RevokedNode{{
			Name: n.Live.ID.Name, UID: n.Live.ID.UID, Reason: keymgr.ReasonKeyCompromise, At: c.Clock.Now(),
			Keys: []keymgr.Hash{info.SPKI}, Serials: []keymgr.CertificateSerial{
				{Issuer: info.Issuer, Serial: info.Serial}, {Issuer: "CN=somebody else", Serial: "7"},
			},
		}},
	}
}

func parseCRL(t *testing.T, der []byte) *x509.RevocationList {
	t.Helper()
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestCRL(t *testing.T) {
	c := keytest.NewCluster(t)
	n := c.Node("a", "10.244.1.0/24")
	l := revocations(t, c, n)
	renew := func(old []byte, l keymgr.RevocationList) []byte {
		t.Helper()
		der, err := c.Authority.RenewCRL(old, l)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	empty := renew(nil, keymgr.RevocationList{})
	if got := parseCRL(t, empty); len(got.RevokedCertificateEntries) != 0 {
		t.Errorf("entries %v in a CRL of nothing", got.RevokedCertificateEntries)
	}
	first := renew(empty, l)
	crl := parseCRL(t, first)
	issuer, err := x509.ParseCertificate(n.Sign().Chain[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := crl.CheckSignatureFrom(issuer); err != nil {
		t.Error(err)
	}
	if e := crl.RevokedCertificateEntries; len(e) != 1 || e[0].SerialNumber.Text(16) != l.Nodes[0].Serials[0].Serial || e[0].ReasonCode != 1 {
		t.Errorf("entries %+v, want the one certificate of this issuer, for keyCompromise", e)
	}
	if crl.NextUpdate.Sub(c.Clock.Now()).Round(time.Minute) != ca.CRLLifetime || crl.ThisUpdate.After(c.Clock.Now()) {
		t.Errorf("valid from %s to %s", crl.ThisUpdate, crl.NextUpdate)
	}
	if crl.Number.Cmp(parseCRL(t, empty).Number) <= 0 {
		t.Errorf("number %v does not follow %v", crl.Number, parseCRL(t, empty).Number)
	}

	c.Clock.Add(ca.CRLLifetime/2 - time.Minute)
	if !bytes.Equal(renew(first, l), first) {
		t.Error("made anew before half of its life")
	}
	c.Clock.Add(2 * time.Minute)
	second := renew(first, l)
	if bytes.Equal(second, first) || parseCRL(t, second).Number.Cmp(crl.Number) <= 0 {
		t.Error("not made anew after half of its life, with a higher number")
	}
	c.Clock.Add(-365 * day) // a controller whose clock is wrong
	if third := renew(second, keymgr.RevocationList{}); parseCRL(t, third).Number.Cmp(parseCRL(t, second).Number) <= 0 {
		t.Error("the number went back with the clock")
	}
	if other := renew([]byte("garbage"), l); parseCRL(t, other).CheckSignatureFrom(issuer) != nil {
		t.Error("garbage was not replaced")
	}
	l.Nodes[0].Serials[0].Serial = "xyz"
	if _, err := c.Authority.RenewCRL(nil, l); err == nil {
		t.Error("a serial number that is none was taken")
	}
}

// TestOpenSSLReadsTheCRL: one certificate is revoked, another is not.
func TestOpenSSLReadsTheCRL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatalf("openssl is needed: %v", err)
	}
	store := memorystore.New()
	c := keytest.NewClusterWith(t, keytest.NewClock(), ca.Config{Store: store, Clock: time.Now})
	c.Clock.Add(time.Since(c.Clock.Now())) // openssl has its own clock
	revoked, good := c.Node("a", "10.244.1.0/24"), c.Node("b", "10.244.2.0/24")
	der, err := c.Authority.RenewCRL(nil, revocations(t, c, revoked))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	chain := revoked.Sign().Chain
	root, issuer := write("root.pem", c.Authority.Bundle()), write("issuer.pem", keymgr.EncodeChain(chain[1:]))
	crl := write("crl.pem", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
	raw := write("crl.der", der)

	out, err := exec.CommandContext(t.Context(), openssl, "crl", "-inform", "DER", "-in", raw, "-noout", "-text", "-verify", "-CAfile", issuer).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "verify OK") || !strings.Contains(string(out), "Key Compromise") {
		t.Errorf("openssl crl: %v\n%s", err, out)
	}
	for name, tc := range map[string]struct {
		chain [][]byte
		want  string
	}{"revoked": {chain, "certificate revoked"}, "good": {good.Sign().Chain, "leaf.pem: OK"}} {
		leaf := write("leaf.pem", keymgr.EncodeChain(tc.chain[:1]))
		out, err := exec.CommandContext(t.Context(), openssl, "verify", "-CAfile", root, "-untrusted", issuer, "-CRLfile", crl, "-crl_check", leaf).CombinedOutput()
		if !strings.Contains(string(out), tc.want) {
			t.Errorf("openssl verify of the %s certificate: %v\n%s", name, err, out)
		}
	}
}

func TestListIsSignedAnewByTheNextIntermediate(t *testing.T) {
	o := newOffice(t)
	a := o.open()
	l := keymgr.RevocationList{Type: keymgr.RevocationsType, TrustDomain: keytest.TrustDomain, Number: 1, IssuedAt: o.clock.Now()}
	signed, err := a.SignRevocations(l)
	if err != nil {
		t.Fatal(err)
	}
	if !a.Signs(signed) || a.Signs(keymgr.Signed{}) {
		t.Error("the authority does not know its own list from none")
	}
	o.clock.Add(300 * day)
	if err := a.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a.Signs(signed) {
		t.Error("the list of the intermediate before is taken for its own")
	}
}

// TestKindsOfIssuerKey: an intermediate that is handed in may have any key.
func TestKindsOfIssuerKey(t *testing.T) {
	c := keytest.NewCluster(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := x509.ParseCertificate(c.Node("a").Sign().Chain[1])
	if err != nil {
		t.Fatal(err)
	}
	l := keymgr.RevocationList{Type: keymgr.RevocationsType, TrustDomain: keytest.TrustDomain, Number: 1}
	for name, key := range map[string]crypto.Signer{"RSA": rsaKey, "Ed25519": edKey} {
		template := *issuer
		template.ExtraExtensions = append(template.ExtraExtensions, extension.NodeIssuer(false))
		template.SignatureAlgorithm = x509.UnknownSignatureAlgorithm
		template.PublicKey = nil
		der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := keymgr.SignRevocations(l, keymgr.Issuer{Key: key, Chain: [][]byte{der}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := keymgr.VerifyRevocations(signed, keymgr.EncodeChain([][]byte{der}), keytest.TrustDomain, c.Clock.Now()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		signed.Signature[len(signed.Signature)-1] ^= 1
		if _, err := keymgr.VerifyRevocations(signed, keymgr.EncodeChain([][]byte{der}), keytest.TrustDomain, c.Clock.Now()); !errors.Is(err, keymgr.ErrSignature) {
			t.Errorf("%s, spoilt: %v", name, err)
		}
	}
}
