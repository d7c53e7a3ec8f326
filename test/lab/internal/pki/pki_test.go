// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package pki

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func parse(t *testing.T, p Pair) *x509.Certificate {
	t.Helper()
	if _, err := tls.X509KeyPair(p.Cert, p.Key); err != nil {
		t.Fatalf("certificate and key do not match: %v", err)
	}
	block, _ := pem.Decode(p.Cert)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func authority(t *testing.T) (*Authority, *x509.CertPool) {
	t.Helper()
	a, err := NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return a, pool
}

func TestIssueServer(t *testing.T) {
	a, roots := authority(t)
	pair, err := a.Issue(Leaf{
		Name: "kube-apiserver", Server: true, DNS: []string{"kubernetes"},
		IPs: []netip.Addr{netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd00:96::1")},
	})
	if err != nil {
		t.Fatal(err)
	}
	cert := parse(t, pair)
	for _, name := range []string{"kubernetes", "10.96.0.1", "[fd00:96::1]"} {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	client := x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := cert.Verify(client); err == nil {
		t.Error("a server's certificate passes as a client's")
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: "other"}); err == nil {
		t.Error("the certificate is good for any name")
	}
}

func TestIssueClient(t *testing.T) {
	a, roots := authority(t)
	pair, err := a.Issue(Leaf{Name: "system:node:n1", Groups: []string{"system:nodes"}})
	if err != nil {
		t.Fatal(err)
	}
	cert := parse(t, pair)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots}); err == nil {
		t.Error("a client's certificate passes as a server's")
	}
	if cert.IsCA || cert.Subject.CommonName != "system:node:n1" || !cmp.Equal(cert.Subject.Organization, []string{"system:nodes"}) {
		t.Errorf("CA %t, subject %v", cert.IsCA, cert.Subject)
	}
	_, foreign := authority(t)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: foreign, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
		t.Error("another authority vouches for it")
	}
}

func TestLoadContinues(t *testing.T) {
	a, roots := authority(t)
	dir := t.TempDir()
	own, err := a.PEM()
	if err != nil {
		t.Fatal(err)
	}
	if err := own.Write(dir, "ca"); err != nil {
		t.Fatal(err)
	}
	again, err := Load(dir, "ca")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := again.Issue(Leaf{Name: "late", Server: true, DNS: []string{"late"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parse(t, pair).Verify(x509.VerifyOptions{Roots: roots, DNSName: "late"}); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "ca.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v %v", info.Mode(), err)
	}
}

func TestLoadRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir, "ca"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no files: got %v", err)
	}
	if err := (Pair{Cert: []byte("no PEM"), Key: nil}).Write(dir, "ca"); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, "ca"); !errors.Is(err, ErrPEM) {
		t.Errorf("no PEM: got %v, want %v", err, ErrPEM)
	}
}

func TestSigningKey(t *testing.T) {
	private, public, err := SigningKey()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(private)
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	block, _ = pem.Decode(public)
	other, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if !key.PublicKey.Equal(other.(*ecdsa.PublicKey)) {
		t.Error("the keys are not a pair")
	}
}

func TestKubeconfig(t *testing.T) {
	text, err := Kubeconfig("https://[fd00:30::11]:6443", []byte("CA"), Pair{Cert: []byte("CERT"), Key: []byte("KEY")})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "lab",
		"clusters": []any{map[string]any{"name": "lab", "cluster": map[string]any{"server": "https://[fd00:30::11]:6443", "certificate-authority-data": "Q0E="}}},
		"users":    []any{map[string]any{"name": "lab", "user": map[string]any{"client-certificate-data": "Q0VSVA==", "client-key-data": "S0VZ"}}},
		"contexts": []any{map[string]any{"name": "lab", "context": map[string]any{"cluster": "lab", "user": "lab"}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
