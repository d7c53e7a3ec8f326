// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/sealane/sealane/keymgr"
)

// CRLLifetime is how long a certificate revocation list is valid. It is renewed after half
// of that.
const CRLLifetime = 24 * time.Hour

// SignRevocations signs the list that nodes follow, in the name of the issuing
// intermediate.
func (a *Authority) SignRevocations(l keymgr.RevocationList) (keymgr.Signed, error) {
	m := a.current()
	return keymgr.SignRevocations(l, m.issuer())
}

// Signs reports whether a signed list names the present intermediate as its signer. It
// verifies nothing.
func (a *Authority) Signs(s keymgr.Signed) bool {
	return len(s.Chain) > 0 && bytes.Equal(s.Chain[0], a.current().intermediate.Raw)
}

// RenewCRL returns the X.509 CRL (RFC 5280, DER) with the certificates of a list that the
// present intermediate has issued. It returns old itself if old says exactly that and has
// more than half of its life left, otherwise a new CRL with a higher number.
func (a *Authority) RenewCRL(old []byte, l keymgr.RevocationList) ([]byte, error) {
	m, now := a.current(), a.cfg.Clock()
	entries, err := crlEntries(l, m.intermediate.Subject.String())
	if err != nil {
		return nil, fmt.Errorf("make CRL: %w", err)
	}
	number := big.NewInt(max(now.UnixMilli(), 1))
	if last, err := x509.ParseRevocationList(old); err == nil && last.CheckSignatureFrom(m.intermediate) == nil {
		if sameEntries(last, entries) && now.Before(last.NextUpdate.Add(-CRLLifetime/2)) {
			return old, nil
		}
		if last.Number != nil && last.Number.Cmp(number) >= 0 {
			number.Add(last.Number, big.NewInt(1))
		}
	}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		RevokedCertificateEntries: entries, Number: number,
		ThisUpdate: now.Add(-backdate), NextUpdate: now.Add(CRLLifetime),
	}, m.intermediate, m.intermediateKey)
	if err != nil {
		return nil, fmt.Errorf("make CRL: %w: %w", ErrIntermediate, err)
	}
	return der, nil
}

// crlEntries picks the certificates of one issuer, sorted by serial number.
func crlEntries(l keymgr.RevocationList, issuer string) ([]x509.RevocationListEntry, error) {
	var out []x509.RevocationListEntry
	for _, n := range l.Nodes {
		for _, s := range n.Serials {
			if s.Issuer != issuer {
				continue
			}
			serial, ok := new(big.Int).SetString(s.Serial, 16)
			if !ok {
				return nil, fmt.Errorf("serial number %q of node %s is not hexadecimal", s.Serial, n.ID())
			}
			out = append(out, x509.RevocationListEntry{
				SerialNumber: serial, RevocationTime: n.At.UTC().Truncate(time.Second), ReasonCode: n.Reason.Code(),
			})
		}
	}
	slices.SortFunc(out, func(a, b x509.RevocationListEntry) int { return a.SerialNumber.Cmp(b.SerialNumber) })
	return slices.CompactFunc(out, func(a, b x509.RevocationListEntry) bool { return a.SerialNumber.Cmp(b.SerialNumber) == 0 }), nil
}

func sameEntries(l *x509.RevocationList, entries []x509.RevocationListEntry) bool {
	return slices.EqualFunc(l.RevokedCertificateEntries, entries, func(a, b x509.RevocationListEntry) bool {
		return a.SerialNumber.Cmp(b.SerialNumber) == 0 && a.ReasonCode == b.ReasonCode && a.RevocationTime.Equal(b.RevocationTime)
	})
}
