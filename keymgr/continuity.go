// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"slices"
)

const (
	// continuityContext separates handovers from everything else that a node's key
	// ever signs.
	continuityContext = "sealane-continuity-v1\x00"
	// MaxLinks is how many renewals a reader may miss.
	MaxLinks = 4
	// A P-256 key takes 91 bytes.
	maxLinkKey = 128
)

// Link is a handover: the key of a node's earlier certificate vouches for the key of the
// next one. It binds keys and not statements, so it is good for as long as the new key,
// and the old private key can be destroyed at once.
type Link struct {
	// Key is the earlier public key (SubjectPublicKeyInfo, DER).
	Key []byte `json:"key"`
	// Signature is by Key, over what handover returns.
	Signature []byte `json:"signature"`
}

func (l Link) equal(o Link) bool {
	return bytes.Equal(l.Key, o.Key) && bytes.Equal(l.Signature, o.Signature)
}

// handoverHash is what the key with hash from signs to hand over to the key with
// hash to.
func handoverHash(trustDomain string, node NodeID, from, to [32]byte) []byte {
	h := sha256.New()
	h.Write([]byte(continuityContext))
	for _, part := range []string{trustDomain, node.Name, node.UID} {
		var size [4]byte
		binary.BigEndian.PutUint32(size[:], uint32(len(part)))
		h.Write(size[:])
		h.Write([]byte(part))
	}
	h.Write(from[:])
	h.Write(to[:])
	return h.Sum(nil)
}

// SignLink lets the key of a node's present certificate vouch for the next one, which
// has the hash to.
func SignLink(key *ecdsa.PrivateKey, trustDomain string, node NodeID, to Hash) (Link, error) {
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return Link{}, fmt.Errorf("encode public key: %w", err)
	}
	signature, err := ecdsa.SignASN1(rand.Reader, key, handoverHash(trustDomain, node, sha256.Sum256(der), to))
	if err != nil {
		return Link{}, fmt.Errorf("sign handover: %w", err)
	}
	return Link{Key: der, Signature: signature}, nil
}

// checkLinks refuses links that are larger than any that a node signs.
func checkLinks(links []Link) error {
	if len(links) > MaxLinks {
		return fmt.Errorf("%w: continuity of %d links, at most %d", ErrTooLarge, len(links), MaxLinks)
	}
	for _, l := range links {
		if len(l.Key) > maxLinkKey || len(l.Signature) > maxSignature {
			return fmt.Errorf("%w: continuity with a key of %d and a signature of %d bytes", ErrTooLarge, len(l.Key), len(l.Signature))
		}
	}
	return nil
}

// handover is what links have to prove: that key from vouches for key to, directly or
// through the keys between them.
type handover struct {
	trustDomain string
	node        NodeID
	from, to    [32]byte
}

// proven returns nil if links, oldest first, lead from the one key to the other.
func (h handover) proven(links []Link) error {
	i := slices.IndexFunc(links, func(l Link) bool { return sha256.Sum256(l.Key) == h.from })
	if i < 0 {
		return fmt.Errorf("none of %d links begins at key %x", len(links), h.from[:8])
	}
	for ; i < len(links); i++ {
		to := h.to
		if i+1 < len(links) {
			to = sha256.Sum256(links[i+1].Key)
		}
		if err := h.checkLink(links[i], to); err != nil {
			return err
		}
	}
	return nil
}

func (h handover) checkLink(l Link, to [32]byte) error {
	parsed, err := x509.ParsePKIXPublicKey(l.Key)
	if err != nil {
		return fmt.Errorf("link: %w", err)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return fmt.Errorf("link with a %T, want ECDSA P-256", parsed)
	}
	from := sha256.Sum256(l.Key)
	if !ecdsa.VerifyASN1(key, handoverHash(h.trustDomain, h.node, from, to), l.Signature) {
		return fmt.Errorf("link from key %x to %x: wrong signature", from[:8], to[:8])
	}
	return nil
}

// checkContinuity: a known node that uses a new key must show that the old key vouches for
// it. The authority alone cannot replace a node unnoticed.
func (v *Verifier) checkContinuity(c *candidate) error {
	if c.prev == nil || c.prev.rec.SPKI == (Hash{}) || c.prev.rec.SPKI == Hash(c.leaf.SPKI) {
		return nil
	}
	h := handover{trustDomain: v.cfg.TrustDomain, node: c.live.ID, from: c.prev.rec.SPKI, to: c.leaf.SPKI}
	err := h.proven(c.signed.Continuity)
	if err == nil {
		return nil
	}
	if v.cfg.StrictContinuity {
		return fmt.Errorf("%w: %w", ErrContinuity, err)
	}
	c.warn(WarnContinuity, "the node has a new certificate key %x which the one before, %x, does not vouch for: %v", h.to[:8], h.from[:8], err)
	return nil
}
