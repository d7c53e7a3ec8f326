// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package approval

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
)

const maxCSR = 16 << 10

// Tags of GeneralName in a subjectAltName (RFC 5280, 4.2.1.6).
const tagURI = 6

// emptyName is a distinguished name without any attribute.
var emptyName = [...]byte{0x30, 0x00}

// csrKey is the public key of a certificate request.
type csrKey struct {
	public *ecdsa.PublicKey
	hash   [32]byte // as keymgr.CertificateInfo.SPKI
}

// checkCSR takes a request for an ECDSA P-256 key with exactly one name, uri.
func checkCSR(data []byte, uri string) (csrKey, error) {
	csr, err := parseCSR(data)
	if err != nil {
		return csrKey{}, err
	}
	public, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return csrKey{}, deny(ReasonKey, "spec.request: public key is %s, want ECDSA P-256", csr.PublicKeyAlgorithm)
	}
	if err := checkSAN(csr, uri); err != nil {
		return csrKey{}, err
	}
	if !bytes.Equal(csr.RawSubject, emptyName[:]) {
		return csrKey{}, deny(ReasonSubject, "spec.request: subject is %q, want none", csr.Subject)
	}
	return csrKey{public: public, hash: sha256.Sum256(csr.RawSubjectPublicKeyInfo)}, nil
}

func parseCSR(data []byte) (*x509.CertificateRequest, error) {
	if len(data) > maxCSR {
		return nil, deny(ReasonRequest, "spec.request has %d bytes, at most %d", len(data), maxCSR)
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, deny(ReasonRequest, "spec.request is not one PEM block CERTIFICATE REQUEST")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, deny(ReasonRequest, "spec.request: %v", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, deny(ReasonRequest, "spec.request: signature: %v", err)
	}
	return csr, nil
}

// checkSAN compares the bytes of the extension, because crypto/x509 skips the kinds
// of names that it does not know.
func checkSAN(csr *x509.CertificateRequest, uri string) error {
	if n := len(csr.DNSNames) + len(csr.EmailAddresses) + len(csr.IPAddresses); n > 0 {
		return deny(ReasonName, "spec.request: %d DNS, email and IP names, want only the URI %q", n, uri)
	}
	if len(csr.URIs) != 1 || csr.URIs[0].String() != uri {
		return deny(ReasonName, "spec.request: URIs are %q, want %q", csr.URIs, uri)
	}
	want, err := marshalSAN(uri)
	if err != nil {
		return deny(ReasonName, "spec.request: %v", err)
	}
	for _, e := range csr.Extensions {
		if e.Id.Equal(oidSubjectAltName()) && !bytes.Equal(e.Value, want) {
			return deny(ReasonName, "spec.request: subjectAltName holds other names than the URI %q", uri)
		}
	}
	return nil
}

func oidSubjectAltName() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 17} }

// marshalSAN returns the value of a subjectAltName with one URI.
func marshalSAN(uri string) ([]byte, error) {
	return asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: tagURI, Bytes: []byte(uri)}})
}
