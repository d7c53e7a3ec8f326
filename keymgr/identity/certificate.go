// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package identity

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
	"github.com/sealane/sealane/internal/times"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/renewal"
)

// CSR returns a certificate request (PKCS#10 in PEM) with the node's URI as the
// only name and no subject. If there is a certificate already, it is for a new key.
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

// SetCertificate replaces the certificate with a new chain (DER, leaf first). It first
// checks that the chain is for this node and for its present or next key, leads to a
// root in the bundle and is valid now. On an error it keeps the old certificate.
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

func (id *Identity) storeCertificateLocked(chain [][]byte, cert *keymgr.NodeCertificate) error {
	another := !cert.IsFor(&id.key.PublicKey)
	if another {
		if err := id.handOverLocked(); err != nil {
			return err
		}
	}
	if err := atomicfile.Write(id.path(fileCert), keymgr.EncodeChain(chain), 0o600); err != nil {
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

func (id *Identity) checkCertificate(chain [][]byte, bundlePEM []byte) (*keymgr.NodeCertificate, error) {
	now := id.cfg.Clock()
	cert, err := keymgr.VerifyChain(chain, bundlePEM, now)
	if err != nil {
		return nil, err
	}
	if err := id.fits(cert); err != nil {
		return nil, err
	}
	if now.After(cert.NotAfter) {
		return nil, fmt.Errorf("%w: %s", keymgr.ErrExpired, times.Stamp(cert.NotAfter))
	}
	if cert.NotBefore.After(now.Add(keymgr.ClockSkew)) {
		return nil, fmt.Errorf("%w: %s", keymgr.ErrNotYetValid, times.Stamp(cert.NotBefore))
	}
	return cert, nil
}

// fits checks that a certificate is for this node and for its present or next key.
func (id *Identity) fits(cert *keymgr.NodeCertificate) error {
	known := cert.IsFor(&id.key.PublicKey) || id.next != nil && cert.IsFor(&id.next.PublicKey)
	switch {
	case !known:
		return fmt.Errorf("%w: it has key %x", keymgr.ErrKeyMismatch, cert.SPKI)
	case cert.TrustDomain != id.cfg.TrustDomain:
		return fmt.Errorf("%w: %q instead of %q", keymgr.ErrTrustDomain, cert.TrustDomain, id.cfg.TrustDomain)
	case cert.Node != id.cfg.Node:
		return fmt.Errorf("%w: certificate is of node %s, this is %s", keymgr.ErrIdentity, cert.Node, id.cfg.Node)
	}
	return nil
}

// loadCertificate reads the stored certificate. It ignores one that is unreadable or
// does not fit the key: the next certificate replaces it.
func (id *Identity) loadCertificate() error {
	data, err := os.ReadFile(id.path(fileCert))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	chain, err := keymgr.DecodeChain(data)
	if err != nil {
		return nil
	}
	cert, err := keymgr.ReadChain(chain)
	if err != nil || id.fits(cert) != nil {
		return nil
	}
	id.chain, id.cert = chain, cert
	return nil
}

// Certificate returns what identifies the current certificate, or false if there is none.
func (id *Identity) Certificate() (keymgr.CertificateInfo, bool) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.cert == nil {
		return keymgr.CertificateInfo{}, false
	}
	return id.cert.CertificateInfo, true
}

// CertifiedAddresses returns the addresses that the current certificate names, or false if
// there is none or it is of a version that did not name them.
func (id *Identity) CertifiedAddresses() ([]netip.Addr, bool) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.cert == nil || !id.cert.NamesAddresses {
		return nil, false
	}
	return slices.Clone(id.cert.Addresses), true
}

// RenewAt returns when to ask for the next certificate: at 50–70 % of the current
// one's life, drawn from its serial number. It is the zero time without a certificate.
func (id *Identity) RenewAt() time.Time {
	cert, ok := id.Certificate()
	if !ok {
		return time.Time{}
	}
	return renewalTime(cert.NotBefore, cert.NotAfter, cert.Serial)
}

// Why NeedsCertificate, NeedsRoot and NeedsStatement ask for something new.
const (
	NeedFirst       = "first"       // there is none yet
	NeedDue         = "due"         // the renewal time has come
	NeedPodCIDRs    = "pod_cidrs"   // the node's pod ranges changed
	NeedCertificate = "certificate" // the certificate was renewed
	NeedKeys        = "keys"        // WireGuard keys or their ports changed
	NeedEndpoints   = "endpoints"   // the node's addresses changed
	NeedAddresses   = "addresses"   // the certificate does not name all addresses of the node
	NeedRoot        = "root"        // the authority has a new root
	NeedTrusted     = "trusted"     // the certificate leads to no trusted root
	NeedPSK         = "psk"         // the preshared-key mode or port changed
)

// NeedsCertificate returns why to ask for a new certificate now, given the pod ranges
// of the Node object; "" means that the current certificate will do.
func (id *Identity) NeedsCertificate(podCIDRs []netip.Prefix) string {
	id.mu.Lock()
	cert := id.cert
	id.mu.Unlock()
	if cert == nil {
		return NeedFirst
	}
	for _, p := range podCIDRs {
		if !cert.Covers(p) {
			return NeedPodCIDRs
		}
	}
	if !id.cfg.Clock().Before(id.RenewAt()) {
		return NeedDue
	}
	return ""
}

// Serves reports whether readers with these roots would accept a statement with these
// pod ranges that is signed now. It ignores whether the certificate is due for renewal.
func (id *Identity) Serves(bundlePEM []byte, podCIDRs []netip.Prefix) bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.cert == nil {
		return false
	}
	if _, err := id.checkCertificate(id.chain, bundlePEM); err != nil {
		return false
	}
	return !slices.ContainsFunc(podCIDRs, func(p netip.Prefix) bool { return !id.cert.Covers(p) })
}

// TLSCertificate returns the current certificate with its key for TLS. Call it again
// for each connection, because the certificate changes.
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

// NeedsRoot returns why the roots call for a new certificate, and when to ask for it:
// at this node's moment in the window if the certificate leads to another root than the
// window's, now if it leads to no root in the bundle. "" means that it does not.
func (id *Identity) NeedsRoot(bundlePEM []byte, window *renewal.Window) (why string, at time.Time) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.cert == nil {
		return "", time.Time{}
	}
	now := id.cfg.Clock()
	if _, err := keymgr.VerifyChain(id.chain, bundlePEM, now); errors.Is(err, keymgr.ErrBundle) {
		return "", time.Time{}
	} else if err != nil {
		return NeedTrusted, now
	}
	top, err := x509.ParseCertificate(id.chain[len(id.chain)-1])
	if err != nil || window == nil || hex.EncodeToString(top.AuthorityKeyId) == window.Root {
		return "", time.Time{}
	}
	return NeedRoot, window.Moment(id.cfg.Node.UID + id.cert.Serial)
}
