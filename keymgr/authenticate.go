// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import "fmt"

// Authenticate tells which node a certificate chain (DER, leaf first) stands for,
// as it is shown in TLS: one whose statement was accepted, with the key that signed
// that statement. The same grace holds as for statements.
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
	if leaf.trustDomain != v.cfg.TrustDomain {
		return NodeID{}, fmt.Errorf("%w: %q instead of %q", ErrTrustDomain, leaf.trustDomain, v.cfg.TrustDomain)
	}
	if leaf.info.NotBefore.After(now.Add(ClockSkew)) {
		return NodeID{}, fmt.Errorf("%w: %s", ErrNotYetValid, stamp(leaf.info.NotBefore))
	}
	if now.After(leaf.info.NotAfter.Add(ClockSkew + v.cfg.Grace)) {
		return NodeID{}, fmt.Errorf("%w: %s", ErrExpired, stamp(leaf.info.NotAfter))
	}
	k := v.nodes[leaf.id.UID]
	if k == nil || k.rec.Gone || k.rec.ID != leaf.id || len(k.rec.Statement.Chain) == 0 {
		return NodeID{}, fmt.Errorf("%w: no statement of node %s was accepted", ErrUnknownNode, leaf.id)
	}
	signer, err := ParseCertificateInfo(k.rec.Statement.Chain[0])
	if err != nil {
		return NodeID{}, err
	}
	if signer.SPKI != leaf.info.SPKI {
		return NodeID{}, fmt.Errorf("%w: node %s signed its statement with key %x, this is %x", ErrKeyMismatch, leaf.id, signer.SPKI[:8], leaf.info.SPKI[:8])
	}
	return leaf.id, v.checkRevoked(leaf.id, leaf.info)
}
