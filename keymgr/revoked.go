// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"fmt"
	"time"

	"github.com/sealane/sealane/internal/times"
)

// RevocationStore keeps the last accepted revocation list. What it saves must be durable
// when SaveRevocations returns.
type RevocationStore interface {
	// LoadRevocations returns what was saved, or the zero Signed if nothing was.
	LoadRevocations() (Signed, error)
	SaveRevocations(Signed) error
}

// revocations is the list in force, ready to look things up in.
type revocations struct {
	signed  Signed
	list    RevocationList
	hash    Hash
	stored  bool                    // on disk
	nodes   map[string]*RevokedNode // by UID
	keys    map[Hash]*RevokedNode
	serials map[CertificateSerial]*RevokedNode
}

func newRevocations(l RevocationList, s Signed) *revocations {
	r := &revocations{
		signed: s, list: l, hash: HashPayload(s.Payload),
		nodes: map[string]*RevokedNode{}, keys: map[Hash]*RevokedNode{}, serials: map[CertificateSerial]*RevokedNode{},
	}
	for i := range l.Nodes {
		n := &l.Nodes[i]
		r.nodes[n.UID] = n
		for _, k := range n.Keys {
			r.keys[k] = n.longer(r.keys[k])
		}
		for _, s := range n.Serials {
			r.serials[s] = n.longer(r.serials[s])
		}
	}
	return r
}

// longer returns which of two entries refuses certificates for longer.
func (n *RevokedNode) longer(o *RevokedNode) *RevokedNode {
	if o != nil && (o.Blocked || !n.Blocked && o.Expires.After(n.Expires)) {
		return o
	}
	return n
}

// find returns the entry that refuses a node or a certificate, or nil if there is none.
// Either may be zero.
func (r *revocations) find(id NodeID, cert CertificateInfo, now time.Time) *RevokedNode {
	if r == nil {
		return nil
	}
	entry := r.nodes[id.UID]
	if entry != nil && entry.Blocked {
		return entry
	}
	if cert.SPKI == [32]byte{} {
		return nil
	}
	for _, n := range []*RevokedNode{r.keys[cert.SPKI], r.serials[CertificateSerial{Issuer: cert.Issuer, Serial: cert.Serial}]} {
		if n != nil && n.lasts(now) {
			return n
		}
	}
	if entry != nil && entry.lasts(now) && !cert.NotBefore.IsZero() && !cert.NotBefore.After(entry.Before) {
		return entry
	}
	return nil
}

// lasts reports whether the entry still refuses certificates.
func (n *RevokedNode) lasts(now time.Time) bool { return n.Blocked || !now.After(n.Expires) }

// openRevocations continues from the stored list, which was verified before it was
// stored, and stays in force if its root is trusted no more; see bars. It ignores the list
// of another cluster.
func (v *Verifier) openRevocations() error {
	if v.cfg.Revocations == nil {
		return nil
	}
	s, err := v.cfg.Revocations.LoadRevocations()
	if err != nil || len(s.Payload) == 0 {
		return err
	}
	l, err := ParseRevocations(s.Payload)
	if err != nil {
		return err
	}
	if l.TrustDomain == v.cfg.TrustDomain {
		v.revoked = newRevocations(l, s)
		v.revoked.stored = true
	}
	return nil
}

// SetRevocations puts a signed revocation list into force, durably, if an issuer of node
// SetRevocations puts a signed revocation list into force, durably, if an issuer of node
// certificates signed it, it is not from the future, and it is not older than the one in
// force. After an error the previous list stays in force: somebody who can merely write
// where the list is published can neither revoke nor readmit. Only after ErrStore the new
// list is in force, because a full disk must not keep a revoked node among the others; call
// SetRevocations again until it is durable too.
func (v *Verifier) SetRevocations(s Signed) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	hash := HashPayload(s.Payload)
	if v.revoked != nil && v.revoked.hash == hash {
		return v.saveRevocations(s)
	}
	now := v.cfg.Clock()
	l, err := verifyRevocations(s, v.issuerScene(now))
	if err == nil {
		err = l.checkClock(now)
	}
	if err != nil {
		return fmt.Errorf("set revocations: %w", err)
	}
	if v.bars(now) {
		if old := v.revoked; l.Number < old.list.Number {
			return fmt.Errorf("set revocations: %w: %d after %d", ErrReplay, l.Number, old.list.Number)
		} else if l.Number == old.list.Number {
			return fmt.Errorf("set revocations: %w: %d with hash %s and %s", ErrFork, l.Number, old.hash, hash)
		}
	}
	v.revoked = newRevocations(l, s)
	return v.saveRevocations(s)
}

// saveRevocations stores the list in force, unless it is stored already.
func (v *Verifier) saveRevocations(s Signed) error {
	if v.cfg.Revocations == nil || v.revoked.stored {
		return nil
	}
	if err := v.cfg.Revocations.SaveRevocations(s); err != nil {
		return fmt.Errorf("set revocations: %w: %w", ErrStore, err)
	}
	v.revoked.stored = true
	return nil
}

// bars reports whether the number of the list in force bars older lists. That of a list
// whose signer leads to no trusted root does not: whoever once got a root of its own into
// the bundle must not bar the lists of the real authority for good. Nor does a number from
// the future. What such a list refuses stays refused until the next list comes. An issuer
// that has expired since is judged by the time of its list.
func (v *Verifier) bars(now time.Time) bool {
	if v.revoked == nil || v.revoked.list.checkClock(now) != nil {
		return false
	}
	_, err := verifyRevocations(v.revoked.signed, v.issuerScene(v.revoked.list.IssuedAt))
	return err == nil
}

func (v *Verifier) issuerScene(at time.Time) IssuerScene {
	return IssuerScene{Roots: v.roots, TrustDomain: v.cfg.TrustDomain, At: at}
}

// checkClock refuses a list from the future.
func (l RevocationList) checkClock(now time.Time) error {
	if l.IssuedAt.After(now.Add(ClockSkew)) {
		return fmt.Errorf("%w: issuedAt %s, but this node's clock says %s: set the one right that is wrong", ErrClock, times.Stamp(l.IssuedAt), times.Stamp(now))
	}
	return CheckNumber(l.Number, now)
}

// Revocations returns the list in force, or false if none was ever accepted.
func (v *Verifier) Revocations() (RevocationList, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.revoked == nil {
		return RevocationList{}, false
	}
	return v.revoked.list, true
}

// Revoked reports whether a node is blocked, or a certificate of it is revoked, and
// why. Leave the certificate zero to ask about the node alone, or all but its SPKI
// to ask about a key.
func (v *Verifier) Revoked(id NodeID, cert CertificateInfo) (RevocationReason, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if n := v.revoked.find(id, cert, v.cfg.Clock()); n != nil {
		return n.Reason, true
	}
	return "", false
}

// checkRevoked refuses a node that is blocked, and a certificate that is revoked.
// The zero certificate asks about the node alone.
func (v *Verifier) checkRevoked(id NodeID, cert CertificateInfo) error {
	n := v.revoked.find(id, cert, v.cfg.Clock())
	switch {
	case n == nil:
		return nil
	case n.Blocked && n.UID == id.UID:
		return fmt.Errorf("%w: %s, at %s", ErrRevoked, n.Reason, times.Stamp(n.At))
	}
	return fmt.Errorf("%w: certificate %s with key %x of node %s: %s, at %s", ErrRevoked, cert.Serial, cert.SPKI[:8], n.ID(), n.Reason, times.Stamp(n.At))
}

// restartHistory lets a readmitted node begin a new history. The old one was signed with a
// key that is revoked, so it cannot be replayed, and a thief of that key may have raised
// sequence numbers and generations beyond the node's reach.
func (v *Verifier) restartHistory(c *candidate) {
	if v.revoked == nil || c.prev == nil {
		return
	}
	old, ok := c.prev.certificate()
	if ok && v.checkRevoked(c.live.ID, old) != nil {
		c.revoked, c.prev = c.prev, nil
	}
}

// certificate returns what vouched for the node's last statement, false if the record
// does not say.
func (k *known) certificate() (CertificateInfo, bool) {
	if k.leaf != nil {
		return k.leaf.CertificateInfo, true
	}
	if len(k.rec.Statement.Chain) == 0 {
		return CertificateInfo{}, false
	}
	info, err := ParseCertificateInfo(k.rec.Statement.Chain[0])
	return info, err == nil
}
