// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package pki makes the keys, certificates and kubeconfigs of a cluster.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// ErrPEM means that a file does not hold what its name says.
var ErrPEM = errors.New("no PEM block of the wanted kind")

// life is the validity of everything: longer than any lab.
const life = 365 * 24 * time.Hour

// Authority signs certificates.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Pair is a certificate and its key, as PEM.
type Pair struct{ Cert, Key []byte }

// Leaf describes a certificate that is no authority.
type Leaf struct {
	Name   string   // common name: the user, for a client
	Groups []string // organizations: the user's groups
	Server bool     // proves the holder to clients, else to servers
	DNS    []string
	IPs    []netip.Addr
}

// NewAuthority makes a root that signs itself.
func NewAuthority(name string) (*Authority, error) {
	key, template, err := begin(pkix.Name{CommonName: name})
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	return &Authority{cert: cert, key: key}, err
}

func begin(subject pkix.Name) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	return key, &x509.Certificate{SerialNumber: serial, Subject: subject, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(life)}, nil
}

// Issue makes a key and signs a certificate for it.
func (a *Authority) Issue(leaf Leaf) (Pair, error) {
	key, template, err := begin(pkix.Name{CommonName: leaf.Name, Organization: leaf.Groups})
	if err != nil {
		return Pair{}, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if leaf.Server {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	template.DNSNames = leaf.DNS
	for _, ip := range leaf.IPs {
		template.IPAddresses = append(template.IPAddresses, net.IP(ip.AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("sign %s: %w", leaf.Name, err)
	}
	private, err := encodeKey(key)
	return Pair{Cert: encodeCert(der), Key: private}, err
}

// PEM returns the authority's own certificate and key.
func (a *Authority) PEM() (Pair, error) {
	private, err := encodeKey(a.key)
	return Pair{Cert: encodeCert(a.cert.Raw), Key: private}, err
}

// Load reads an authority that [Pair.Write] wrote.
func Load(dir, name string) (*Authority, error) {
	cert, err := decode(filepath.Join(dir, name+".crt"), "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	private, err := decode(filepath.Join(dir, name+".key"), "EC PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	a := &Authority{}
	if a.cert, err = x509.ParseCertificate(cert); err != nil {
		return nil, fmt.Errorf("read authority %s: %w", name, err)
	}
	if a.key, err = x509.ParseECPrivateKey(private); err != nil {
		return nil, fmt.Errorf("read authority %s: %w", name, err)
	}
	return a, nil
}

func decode(file, kind string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("read %s: %w: %s", file, ErrPEM, kind)
	}
	return block.Bytes, nil
}

// Write writes the pair to NAME.crt and NAME.key in dir.
func (p Pair) Write(dir, name string) error {
	if err := os.WriteFile(filepath.Join(dir, name+".crt"), p.Cert, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".key"), p.Key, 0o600)
}

// SigningKey makes a key pair for tokens: PEM of the private and of the public key.
func SigningKey() (private, public []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if private, err = encodeKey(key); err != nil {
		return nil, nil, err
	}
	public, err = encodePublic(key.Public())
	return private, public, err
}

func encodePublic(key crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), err
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), err
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// Kubeconfig makes a kubeconfig that holds everything to log in at server, an https URL, with login's certificate.
func Kubeconfig(server string, ca []byte, login Pair) ([]byte, error) {
	type object = map[string]any
	// JSON is YAML; []byte becomes base64, which is what these fields are.
	return json.MarshalIndent(object{
		"apiVersion":      "v1",
		"kind":            "Config",
		"current-context": "lab",
		"clusters":        []object{{"name": "lab", "cluster": object{"server": server, "certificate-authority-data": ca}}},
		"users":           []object{{"name": "lab", "user": object{"client-certificate-data": login.Cert, "client-key-data": login.Key}}},
		"contexts":        []object{{"name": "lab", "context": object{"cluster": "lab", "user": "lab"}}},
	}, "", "  ")
}
