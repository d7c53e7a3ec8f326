// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"fmt"

	"github.com/sealane/sealane/internal/times"
)

// Authenticate returns the node that a certificate chain from TLS (DER, leaf first) is
// for. It accepts only a node whose statement was accepted, and only the key that signed
// that statement. The same grace applies as for statements.
func (v *Verifier) Authenticate(chain [][]byte) (NodeID, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	id, err := v.authenticateLocked(chain)
	if err != nil {
		return NodeID{}, fmt.Errorf("authenticate node: %w", err)
	}
	return id, nil
}

func (v *Verifier) authenticateLocked(chain [][]byte) (NodeID, error) {
	if v.roots == nil {
		return NodeID{}, ErrNoRoots
	}
	now := v.cfg.Clock()
	leaf, err := verifyChain(chain, v.roots, now)
	if err != nil {
		return NodeID{}, err
	}
	if leaf.TrustDomain != v.cfg.TrustDomain {
		return NodeID{}, fmt.Errorf("%w: %q instead of %q", ErrTrustDomain, leaf.TrustDomain, v.cfg.TrustDomain)
	}
	if leaf.NotBefore.After(now.Add(ClockSkew)) {
		return NodeID{}, fmt.Errorf("%w: %s", ErrNotYetValid, times.Stamp(leaf.NotBefore))
	}
	if now.After(leaf.NotAfter.Add(ClockSkew + v.cfg.Grace)) {
		return NodeID{}, fmt.Errorf("%w: %s", ErrExpired, times.Stamp(leaf.NotAfter))
	}
	k := v.nodes[leaf.Node.UID]
	if k == nil || k.rec.Gone || k.rec.ID != leaf.Node || len(k.rec.Statement.Chain) == 0 {
		return NodeID{}, fmt.Errorf("%w: no statement of node %s was accepted", ErrUnknownNode, leaf.Node)
	}
	signer, err := ParseCertificateInfo(k.rec.Statement.Chain[0])
	if err != nil {
		return NodeID{}, err
	}
	if signer.SPKI != leaf.SPKI {
		return NodeID{}, fmt.Errorf("%w: node %s signed its statement with key %x, this is %x", ErrKeyMismatch, leaf.Node, signer.SPKI[:8], leaf.SPKI[:8])
	}
	return leaf.Node, v.checkRevoked(leaf.Node, leaf.CertificateInfo)
}
