// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

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

// maxPrefixes bounds pod CIDRs in certificates and statements: one per family is
// usual, Kubernetes allows no more than two.
const maxPrefixes = 8

// The object identifiers of Sealane's certificate extensions are below
// 2.25.1690871243: no enterprise number is assigned, 2.25 needs no registration,
// and Go reads no arc above 31 bits.
const oidArc = 1690871243

func oidPodCIDRs() asn1.ObjectIdentifier   { return asn1.ObjectIdentifier{2, 25, oidArc, 1} }
func oidNodeIssuer() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 25, oidArc, 2} }

// PodCIDRExtension returns the extension that names the pod ranges of a node, a
// DER SEQUENCE OF IA5String. It is not critical: others may ignore it.
func PodCIDRExtension(prefixes []netip.Prefix) (pkix.Extension, error) {
	if err := checkPrefixes(prefixes); err != nil {
		return pkix.Extension{}, fmt.Errorf("encode pod CIDRs: %w", err)
	}
	list := make([]asn1.RawValue, 0, len(prefixes))
	for _, p := range prefixes {
		list = append(list, asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte(p.String())})
	}
	der, err := asn1.Marshal(list)
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("encode pod CIDRs: %w", err)
	}
	return pkix.Extension{Id: oidPodCIDRs(), Value: der}, nil
}

// ParsePodCIDRs reads the value of a pod CIDR extension. It takes exactly what
// PodCIDRExtension writes: DER, canonical masked prefixes, none twice.
func ParsePodCIDRs(der []byte) ([]netip.Prefix, error) {
	var list []asn1.RawValue
	if _, err := asn1.Unmarshal(der, &list); err != nil {
		return nil, fmt.Errorf("decode pod CIDRs: %w", err)
	}
	prefixes := make([]netip.Prefix, 0, len(list))
	for _, raw := range list {
		p, err := netip.ParsePrefix(string(raw.Bytes))
		if err != nil {
			return nil, fmt.Errorf("decode pod CIDRs: %w", err)
		}
		prefixes = append(prefixes, p)
	}
	want, err := PodCIDRExtension(prefixes)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(want.Value, der) {
		return nil, fmt.Errorf("decode pod CIDRs: not the canonical encoding")
	}
	return prefixes, nil
}

// checkPrefixes refuses prefixes that are not masked, too many, or overlap.
func checkPrefixes(prefixes []netip.Prefix) error {
	if len(prefixes) > maxPrefixes {
		return fmt.Errorf("%d prefixes, at most %d", len(prefixes), maxPrefixes)
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

// NodeIssuerExtension returns the mark of a CA certificate that issues node certificates.
// Verify accepts a leaf from no other issuer. Where the root also signs for other
// purposes, as the Kubernetes cluster's own CA does, no such certificate can pass for a
// node.
//
// A critical mark works the other way round too: software that does not know it, such as
// the API server, must refuse each certificate below (RFC 5280, 4.2).
func NodeIssuerExtension(critical bool) pkix.Extension {
	return pkix.Extension{Id: oidNodeIssuer(), Critical: critical, Value: asn1.NullBytes}
}

func isNodeIssuer(c *x509.Certificate) bool {
	return slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool {
		return e.Id.Equal(oidNodeIssuer()) && bytes.Equal(e.Value, asn1.NullBytes)
	})
}
