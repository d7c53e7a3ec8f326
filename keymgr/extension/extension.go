// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package extension reads and writes the extensions of Sealane's certificates.
package extension

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sealane/sealane/internal/canonical"
)

const (
	// MaxPrefixes bounds pod ranges in certificates and statements: one per family is
	// usual, Kubernetes allows no more than two.
	MaxPrefixes = 8
	// MaxAddresses bounds node addresses there: one per family is usual.
	MaxAddresses = 8
)

// The object identifiers of Sealane's certificate extensions are below
// 2.25.1690871243: no enterprise number is assigned, 2.25 needs no registration,
// and Go reads no arc above 31 bits.
const oidArc = 1690871243

// PodCIDRsID returns the object identifier of the extension with a node's pod ranges.
func PodCIDRsID() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 25, oidArc, 1} }

// NodeIssuerID returns the object identifier of the mark of a node issuer.
func NodeIssuerID() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 25, oidArc, 2} }

// AddressesID returns the object identifier of the extension with a node's addresses.
func AddressesID() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 25, oidArc, 3} }

// PodCIDRs returns the extension that names the pod ranges of a node, a DER SEQUENCE OF
// IA5String. It is not critical: others may ignore it.
func PodCIDRs(prefixes []netip.Prefix) (pkix.Extension, error) {
	if err := CheckPrefixes(prefixes); err != nil {
		return pkix.Extension{}, fmt.Errorf("encode pod CIDRs: %w", err)
	}
	return encode(PodCIDRsID(), "pod CIDRs", prefixes)
}

// ParsePodCIDRs reads the value of a pod CIDR extension. It takes exactly what PodCIDRs
// writes: DER, canonical masked prefixes, none twice.
func ParsePodCIDRs(der []byte) ([]netip.Prefix, error) {
	return decode(der, "pod CIDRs", netip.ParsePrefix, PodCIDRs)
}

// Addresses returns the extension that names the addresses of a node, encoded as those of
// PodCIDRs are. An empty list says that none is the node's.
func Addresses(addrs []netip.Addr) (pkix.Extension, error) {
	if len(addrs) > MaxAddresses {
		return pkix.Extension{}, fmt.Errorf("encode node addresses: %d, at most %d", len(addrs), MaxAddresses)
	}
	for i, a := range addrs {
		if !canonical.Address(a) {
			return pkix.Extension{}, fmt.Errorf("encode node addresses: %q is not in canonical form", a)
		}
		if slices.Contains(addrs[:i], a) {
			return pkix.Extension{}, fmt.Errorf("encode node addresses: %s twice", a)
		}
	}
	return encode(AddressesID(), "node addresses", addrs)
}

// ParseAddresses reads the value of an extension with node addresses. It takes exactly what
// Addresses writes.
func ParseAddresses(der []byte) ([]netip.Addr, error) {
	return decode(der, "node addresses", netip.ParseAddr, Addresses)
}

func encode[T fmt.Stringer](id asn1.ObjectIdentifier, what string, values []T) (pkix.Extension, error) {
	list := make([]asn1.RawValue, 0, len(values))
	for _, v := range values {
		list = append(list, asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte(v.String())})
	}
	der, err := asn1.Marshal(list)
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("encode %s: %w", what, err)
	}
	return pkix.Extension{Id: id, Value: der}, nil
}

// decode parses a list and writes it again, so that one list has one encoding.
func decode[T any](der []byte, what string, parse func(string) (T, error), write func([]T) (pkix.Extension, error)) ([]T, error) {
	var list []asn1.RawValue
	if _, err := asn1.Unmarshal(der, &list); err != nil {
		return nil, fmt.Errorf("decode %s: %w", what, err)
	}
	values := make([]T, 0, len(list))
	for _, raw := range list {
		v, err := parse(string(raw.Bytes))
		if err != nil {
			return nil, fmt.Errorf("decode %s: %w", what, err)
		}
		values = append(values, v)
	}
	want, err := write(values)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(want.Value, der) {
		return nil, fmt.Errorf("decode %s: not the canonical encoding", what)
	}
	return values, nil
}

// CheckPrefixes refuses prefixes that are not masked, too many, or overlap.
func CheckPrefixes(prefixes []netip.Prefix) error {
	if len(prefixes) > MaxPrefixes {
		return fmt.Errorf("%d prefixes, at most %d", len(prefixes), MaxPrefixes)
	}
	for i, p := range prefixes {
		if !canonical.Prefix(p) {
			return fmt.Errorf("prefix %s is not in canonical form", p)
		}
		if slices.ContainsFunc(prefixes[:i], p.Overlaps) {
			return fmt.Errorf("prefix %s overlaps another", p)
		}
	}
	return nil
}

// NodeIssuer returns the mark of a CA certificate that issues node certificates.
// keymgr.Verifier accepts a leaf from no other issuer. Where the root also signs for other
// purposes, as the Kubernetes cluster's own CA does, no such certificate can pass for a
// node.
//
// A critical mark works the other way round too: software that does not know it, such as
// the API server, must refuse each certificate below (RFC 5280, 4.2).
func NodeIssuer(critical bool) pkix.Extension {
	return pkix.Extension{Id: NodeIssuerID(), Critical: critical, Value: asn1.NullBytes}
}

// MarksNodeIssuer reports whether a certificate carries the mark of a node issuer.
func MarksNodeIssuer(c *x509.Certificate) bool {
	return slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool {
		return e.Id.Equal(NodeIssuerID()) && bytes.Equal(e.Value, asn1.NullBytes)
	})
}
