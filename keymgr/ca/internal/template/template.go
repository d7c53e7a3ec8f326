// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package template builds the parts of certificates that need no private key.
package template

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
)

// CA returns a template whose name is unique to the key.
func CA(name string, key *ecdsa.PublicKey) (*x509.Certificate, error) {
	serial, err := Serial()
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
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

// Constrain permits URIs of the trust domain and forbids every other kind of name
// that crypto/x509 knows (RFC 5280, 4.2.1.10). The subject cannot be constrained
// so: crypto/x509 has no constraints on directory names.
func Constrain(template *x509.Certificate, trustDomain string) {
	template.PermittedDNSDomainsCritical = true // of the extension as a whole
	template.PermittedURIDomains = []string{trustDomain}
	template.ExcludedDNSDomains = []string{""}
	template.ExcludedEmailAddresses = []string{""}
	template.ExcludedIPRanges = []*net.IPNet{
		{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
		{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
	}
}

// Serial returns 128 random bits, never 0.
func Serial() (*big.Int, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, fmt.Errorf("generate serial number: %w", err)
	}
	serial := new(big.Int).SetBytes(b[:])
	return serial.Add(serial, big.NewInt(1)), nil
}

// BothSides returns client and server authentication.
func BothSides() []x509.ExtKeyUsage {
	return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
}
