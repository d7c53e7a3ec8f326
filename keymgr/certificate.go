// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/sealane/sealane/internal/atomicfile"
)

// CSR returns a certificate request (PKCS#10 in PEM) with the node's URI as the
// only name and no subject. Once there is a certificate, it is for a new key.
func (id *Identity) CSR() ([]byte, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	key, err := id.requestKeyLocked()
	if err != nil {
		return nil, fmt.Errorf("create certificate request: %w", err)
	}
	template := &x509.CertificateRequest{
		URIs:               []*url.URL{id.cfg.Node.URI(id.cfg.TrustDomain)},
		SignatureAlgorithm: x509.ECDSAWithSHA256,
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, fmt.Errorf("create certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// SetCertificate replaces the certificate by a new chain (DER, leaf first), after
// checking that it is for this node and for its key or the next one, leads to a root
// in the bundle, and is valid now. After an error the old certificate stays.
func (id *Identity) SetCertificate(chain [][]byte, bundlePEM []byte) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	cert, err := id.checkCertificate(chain, bundlePEM)
	if err == nil {
		err = id.storeCertificateLocked(chain, cert)
	}
	if err != nil {
		return fmt.Errorf("set certificate: %w", err)
	}
	return nil
}

func (id *Identity) storeCertificateLocked(chain [][]byte, cert *nodeCertificate) error {
	another := !cert.key.Equal(&id.key.PublicKey)
	if another {
		if err := id.handOverLocked(); err != nil {
			return err
		}
	}
	if err := atomicfile.Write(id.path(fileCert), EncodeChain(chain), 0o600); err != nil {
		return err
	}
	if another {
		if err := id.useNextKeyLocked(); err != nil {
			return err
		}
	}
	id.chain, id.cert = slices.Clone(chain), cert
	if another {
		return atomicfile.Remove(id.path(fileNextKey))
	}
	return nil
}

func (id *Identity) checkCertificate(chain [][]byte, bundlePEM []byte) (*nodeCertificate, error) {
	pool, err := parsePool(bundlePEM)
	if err != nil {
		return nil, err
	}
	now := id.cfg.Clock()
	cert, err := verifyChain(chain, pool, now)
	if err != nil {
		return nil, err
	}
	if err := id.fits(cert); err != nil {
		return nil, err
	}
	if now.After(cert.info.NotAfter) {
		return nil, fmt.Errorf("%w: %s", ErrExpired, stamp(cert.info.NotAfter))
	}
	if cert.info.NotBefore.After(now.Add(ClockSkew)) {
		return nil, fmt.Errorf("%w: %s", ErrNotYetValid, stamp(cert.info.NotBefore))
	}
	return cert, nil
}

// fits tells whether a certificate is this identity's, with its key or the next one.
func (id *Identity) fits(cert *nodeCertificate) error {
	known := cert.key.Equal(&id.key.PublicKey) || id.next != nil && cert.key.Equal(&id.next.PublicKey)
	switch {
	case !known:
		return fmt.Errorf("%w: it has key %x", ErrKeyMismatch, cert.info.SPKI)
	case cert.trustDomain != id.cfg.TrustDomain:
		return fmt.Errorf("%w: %q instead of %q", ErrTrustDomain, cert.trustDomain, id.cfg.TrustDomain)
	case cert.id != id.cfg.Node:
		return fmt.Errorf("%w: certificate is of node %s, this is %s", ErrIdentity, cert.id, id.cfg.Node)
	}
	return nil
}

// loadCertificate reads the stored certificate. One that is unreadable or does not
// fit the key is as good as none: the next one replaces it.
func (id *Identity) loadCertificate() error {
	data, err := os.ReadFile(id.path(fileCert))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	chain, err := DecodeChain(data)
	if err != nil {
		return nil
	}
	certs, err := parseChain(chain)
	if err != nil || len(certs) < 2 {
		return nil
	}
	cert, err := inspectLeaf(certs[0], certs[1:])
	if err != nil || id.fits(cert) != nil {
		return nil
	}
	id.chain, id.cert = chain, cert
	return nil
}

// Certificate returns what identifies the current certificate, false if there is none.
func (id *Identity) Certificate() (CertificateInfo, bool) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.cert == nil {
		return CertificateInfo{}, false
	}
	return id.cert.info, true
}

// RenewAt returns when to ask for the next certificate: at 50–70 % of the current
// one's life, drawn from its serial number; the zero time if there is none.
func (id *Identity) RenewAt() time.Time {
	cert, ok := id.Certificate()
	if !ok {
		return time.Time{}
	}
	return renewalTime(cert.NotBefore, cert.NotAfter, cert.Serial)
}

// Why NeedsCertificate and NeedsStatement call for something new.
const (
	NeedFirst       = "first"       // there is none yet
	NeedDue         = "due"         // the renewal time has come
	NeedPodCIDRs    = "pod_cidrs"   // the node's pod ranges changed
	NeedCertificate = "certificate" // the certificate was renewed
	NeedKeys        = "keys"        // WireGuard keys or their ports changed
	NeedEndpoints   = "endpoints"   // the node's addresses changed
	NeedRoot        = "root"        // the authority has a new root
	NeedTrusted     = "trusted"     // it leads to no trusted root
	NeedPSK         = "psk"         // the preshared-key mode or port changed
)

// NeedsCertificate returns why a new certificate should be asked for now, given the
// pod ranges of the Node object; "" if the current one will do.
func (id *Identity) NeedsCertificate(podCIDRs []netip.Prefix) string {
	id.mu.Lock()
	cert := id.cert
	id.mu.Unlock()
	if cert == nil {
		return NeedFirst
	}
	for _, p := range podCIDRs {
		if !covered(p, cert.podCIDRs) {
			return NeedPodCIDRs
		}
	}
	if !id.cfg.Clock().Before(id.RenewAt()) {
		return NeedDue
	}
	return ""
}

// Serves tells whether a statement with these pod ranges that is signed now is good
// for readers with these roots, be the certificate due to be renewed or not.
func (id *Identity) Serves(bundlePEM []byte, podCIDRs []netip.Prefix) bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.cert == nil {
		return false
	}
	if _, err := id.checkCertificate(id.chain, bundlePEM); err != nil {
		return false
	}
	return !slices.ContainsFunc(podCIDRs, func(p netip.Prefix) bool { return !covered(p, id.cert.podCIDRs) })
}

// TLSCertificate returns the current certificate with its key for TLS. Take it
// anew for each connection, for the certificate changes.
func (id *Identity) TLSCertificate() (*tls.Certificate, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.cert == nil {
		return nil, ErrNoCertificate
	}
	return &tls.Certificate{Certificate: slices.Clone(id.chain), PrivateKey: id.key}, nil
}

// KeyHash returns the hash of the node's public key, as CertificateInfo.SPKI has it.
func (id *Identity) KeyHash() ([32]byte, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	return spki(id.key)
}

// NeedsRoot returns why a new certificate should be asked for because of the roots,
// and the moment for it: that of the window, if the certificate leads to another root;
// now, if it does not lead to any root in the bundle. "" means that it need not.
func (id *Identity) NeedsRoot(bundlePEM []byte, window *Window) (why string, at time.Time) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.cert == nil {
		return "", time.Time{}
	}
	pool, err := parsePool(bundlePEM)
	if err != nil {
		return "", time.Time{}
	}
	now := id.cfg.Clock()
	if _, err := verifyChain(id.chain, pool, now); err != nil {
		return NeedTrusted, now
	}
	top, err := x509.ParseCertificate(id.chain[len(id.chain)-1])
	if err != nil || window == nil || hex.EncodeToString(top.AuthorityKeyId) == window.Root {
		return "", time.Time{}
	}
	return NeedRoot, window.Moment(id.cfg.Node.UID + id.cert.info.Serial)
}
