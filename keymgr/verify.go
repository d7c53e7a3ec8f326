// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sealane/sealane/internal/times"
	"github.com/sealane/sealane/keymgr/nodenet"
)

const (
	// ClockSkew is how far the clocks of two nodes may differ.
	ClockSkew = 10 * time.Minute
	// DefaultGrace is how long accepted keys outlive their statement or certificate,
	// so that a signer that is away over a weekend does not stop the cluster.
	DefaultGrace = 7 * 24 * time.Hour
)

// VerifierConfig configures a Verifier.
type VerifierConfig struct {
	// TrustDomain is the cluster's: the UID of its kube-system namespace.
	TrustDomain string
	// Self is this node. Its own statement is refused.
	Self NodeID
	// Marks keeps the high-water marks; nil keeps them in memory only, which is for tools
	// that merely look.
	Marks MarkStore
	// Revocations keeps the last revocation list; nil keeps it in memory only.
	Revocations RevocationStore
	// Clock returns the current time; nil means time.Now.
	Clock func() time.Time
	// AddressRanges are the ranges that endpoints may lie in besides the InternalIPs of the
	// Node; empty means none.
	AddressRanges []netip.Prefix
	// Grace is how long accepted statements serve after they expire; 0 means not at all.
	Grace time.Duration
	// StrictContinuity refuses a new certificate key of a known node unless the old key
	// vouches for it. Otherwise that is only a warning.
	StrictContinuity bool
	// PSK is this node's own preshared-key mode; "" means PSKOff.
	PSK PSKMode
}

// Verifier verifies the statements of all other nodes and remembers which keys and pod
// ranges each has. It is safe for concurrent use.
type Verifier struct {
	cfg VerifierConfig

	mu     sync.Mutex // guards all below
	roots  *x509.CertPool
	bundle Hash   // of roots, zero without
	epoch  uint64 // counts changes of roots
	keys   []PublicKey
	cidrs  []netip.Prefix
	// addresses are this node's own, and rules say which ones others can have.
	addresses []netip.Addr
	rules     nodenet.Rules
	restoring bool              // during Restore
	nodes     map[string]*known // by UID
	names     map[string]string // live node name to UID
	claims    claims
	// revoked is the list in force, nil if none was ever accepted.
	revoked *revocations
}

// known is a node of which a statement was accepted.
type known struct {
	rec  Record
	stmt Statement
	// leaf is the certificate of rec.Statement, if it was verified in this process,
	// and epoch says under which roots.
	leaf  *NodeCertificate
	epoch uint64
}

// NewVerifier returns a verifier that continues from the stored marks. If it cannot read a
// mark, it fails with an error that names the file: without the mark, an old statement of
// that node could be replayed.
func NewVerifier(cfg VerifierConfig) (*Verifier, error) {
	if err := errors.Join(ValidateTrustDomain(cfg.TrustDomain), cfg.Self.Validate()); err != nil {
		return nil, fmt.Errorf("create verifier: %w", err)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.PSK == "" {
		cfg.PSK = PSKOff
	}
	v := &Verifier{cfg: cfg, nodes: map[string]*known{}, names: map[string]string{}, claims: newClaims()}
	if err := v.openRevocations(); err != nil {
		return nil, fmt.Errorf("create verifier: %w", err)
	}
	if cfg.Marks == nil {
		return v, nil
	}
	records, err := cfg.Marks.Load()
	if err != nil {
		return nil, fmt.Errorf("create verifier: %w (delete the file to accept that node as new)", err)
	}
	for _, r := range records {
		v.adopt(r)
	}
	return v, v.pruneLocked()
}

// adopt takes over a stored record, whose statement was verified before it was stored.
func (v *Verifier) adopt(r Record) {
	if chain := r.Statement.Chain; r.SPKI == (Hash{}) && len(chain) > 0 {
		if info, err := ParseCertificateInfo(chain[0]); err == nil {
			r.SPKI = info.SPKI
		}
	}
	k := &known{rec: r}
	v.nodes[r.ID.UID] = k
	if stmt, err := ParseStatement(r.Statement.Payload); err == nil {
		k.stmt = stmt
	}
	if !r.Gone {
		v.names[r.ID.Name] = r.ID.UID
		v.claims.hold(k.claim())
		v.claims.holdAddresses(r.ID, r.Addresses)
	}
}

// SetRoots replaces the trusted roots. After an error the old ones stay.
func (v *Verifier) SetRoots(bundlePEM []byte) error {
	roots, err := ParseBundle(bundlePEM)
	if err != nil {
		return fmt.Errorf("set roots: %w", err)
	}
	pool, hash := newPool(roots), hashRoots(roots)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.bundle = hash
	if v.roots == nil || !v.roots.Equal(pool) {
		v.roots = pool
		v.epoch++
	}
	return nil
}

// Bundle returns the hash (HashBundle) of the roots in use, or false before SetRoots.
func (v *Verifier) Bundle() (Hash, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.bundle, v.roots != nil
}

// SetSelf says which WireGuard keys, pod ranges and addresses are this node's own, so that
// no other node can claim them.
func (v *Verifier) SetSelf(keys []PublicKey, self LiveNode) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.keys, v.cidrs, v.addresses = slices.Clone(keys), slices.Clone(self.PodCIDRs), slices.Clone(self.Addresses)
}

// Forget frees the keys, pod ranges and addresses of a node. Call it when the Node object is gone. The
// sequence mark stays until no older statement can be valid.
func (v *Verifier) Forget(id NodeID) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.forgetLocked(id.UID); err != nil {
		return fmt.Errorf("forget node %s: %w", id, err)
	}
	return v.pruneLocked()
}

func (v *Verifier) forgetLocked(uid string) error {
	k := v.nodes[uid]
	if k == nil || k.rec.Gone {
		return nil
	}
	v.claims.release(k.claim())
	v.claims.releaseAddresses(k.rec.ID, k.rec.Addresses, nil)
	delete(v.names, k.rec.ID.Name)
	k.rec.Gone = true
	return v.save(k.rec)
}

// pruneLocked drops the marks of deleted nodes that no longer protect from anything.
func (v *Verifier) pruneLocked() error {
	now := v.cfg.Clock()
	var errs []error
	for uid, k := range v.nodes {
		if !k.rec.Gone || !now.After(k.rec.Expires) {
			continue
		}
		delete(v.nodes, uid)
		if v.cfg.Marks != nil {
			errs = append(errs, v.cfg.Marks.Delete(uid))
		}
	}
	return errors.Join(errs...)
}

func (v *Verifier) save(r Record) error {
	if v.cfg.Marks == nil {
		return nil
	}
	if err := v.cfg.Marks.Save(r); err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	return nil
}

// Restore verifies the stored statements against what the API server said when they were
// accepted, for a boot without an API server. The error joins the reasons for the nodes
// that are left out.
func (v *Verifier) Restore() ([]Peer, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var peers []Peer
	var errs []error
	v.restoring = true
	defer func() { v.restoring = false }()
	for _, k := range v.nodes {
		if k.rec.Gone {
			continue
		}
		p, err := v.verifyLocked(k.rec.Statement, k.rec.Live)
		if err != nil {
			errs = append(errs, fmt.Errorf("restore node %s: %w", k.rec.ID, err))
			continue
		}
		peers = append(peers, p)
	}
	slices.SortFunc(peers, func(a, b Peer) int { return compareIDs(a.ID, b.ID) })
	return peers, errors.Join(errs...)
}

// Remembered returns the records of all nodes that are not gone, sorted by name. It serves
// a start without an API server and is no shortcut: the caller must pass a record to
// Verify like a statement from the API server.
func (v *Verifier) Remembered() []Record {
	v.mu.Lock()
	defer v.mu.Unlock()
	var all []Record
	for _, k := range v.nodes {
		if !k.rec.Gone {
			all = append(all, k.rec)
		}
	}
	slices.SortFunc(all, func(a, b Record) int { return compareIDs(a.ID, b.ID) })
	return all
}

// Verify checks a statement against the roots, the live Node object and everything that
// was accepted before, and stores it durably before it returns. The same statement gives
// the same peer again: whenever anything changed, call Forget for the nodes that are gone
// and then Verify for all others. RejectReason returns the label of an error.
func (v *Verifier) Verify(s Signed, live LiveNode) (Peer, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	p, err := v.verifyLocked(s, live)
	if err != nil {
		return Peer{}, fmt.Errorf("verify statement of node %s: %w", live.ID, err)
	}
	return p, nil
}

// candidate is a statement on its way through the checks.
type candidate struct {
	signed Signed
	live   LiveNode
	now    time.Time

	stmt Statement
	leaf *NodeCertificate
	// prev is what was accepted of the node before, nil if nothing.
	prev *known
	// revoked is what was accepted of the node before it was revoked and readmitted.
	revoked *known
	// repeat is set if the payload is the one that was accepted last.
	repeat bool

	end       time.Time
	grace     bool
	keys      []PeerKey
	addresses []netip.Addr
	warnings  []Warning
}

func (v *Verifier) verifyLocked(s Signed, live LiveNode) (Peer, error) {
	if live.ID.Validate() != nil {
		return Peer{}, fmt.Errorf("%w: %q", ErrUnknownNode, live.ID)
	}
	if live.ID.Name == v.cfg.Self.Name || live.ID.UID == v.cfg.Self.UID {
		return Peer{}, ErrSelf
	}
	// The live Node is the truth about names: an earlier one of that name is gone.
	if uid, ok := v.names[live.ID.Name]; ok && uid != live.ID.UID {
		if err := v.forgetLocked(uid); err != nil {
			return Peer{}, err
		}
	}
	if err := v.checkRevoked(live.ID, CertificateInfo{}); err != nil {
		return Peer{}, err
	}
	c := &candidate{signed: s, live: live, now: v.cfg.Clock(), prev: v.nodes[live.ID.UID]}
	if err := v.authenticate(c); err != nil {
		return Peer{}, err
	}
	if err := v.checkRevoked(live.ID, c.leaf.CertificateInfo); err != nil {
		return Peer{}, err
	}
	v.restartHistory(c)
	for _, check := range []func(*candidate) error{
		v.checkNames, v.checkSequence, v.checkContinuity, v.checkTimes, v.checkGenerations, v.checkKeys,
		v.checkPorts, v.checkEndpoints, v.checkAddresses, v.checkPodCIDRs, v.checkPSK,
	} {
		if err := check(c); err != nil {
			return Peer{}, err
		}
	}
	if err := v.accept(c); err != nil {
		return Peer{}, err
	}
	return v.peer(c), nil
}

// authenticate finds out who signed the payload. It does not verify again what it has
// verified under the same roots before, be it the chain or the whole statement.
func (v *Verifier) authenticate(c *candidate) (err error) {
	if v.roots == nil {
		return ErrNoRoots
	}
	if v.knowsChain(c) {
		c.leaf = c.prev.leaf
		if c.signed.Equal(c.prev.rec.Statement) {
			c.stmt = c.prev.stmt
			return nil
		}
	}
	if n := len(c.signed.Signature); n > maxSignature {
		return fmt.Errorf("%w: signature of %d bytes, at most %d", ErrTooLarge, n, maxSignature)
	}
	if err := checkLinks(c.signed.Continuity); err != nil {
		return err
	}
	if c.stmt, err = ParseStatement(c.signed.Payload); err != nil {
		return err
	}
	if c.stmt.Type != StatementType {
		return fmt.Errorf("%w: %q instead of %q", ErrType, c.stmt.Type, StatementType)
	}
	if c.leaf == nil {
		if c.leaf, err = verifyChain(c.signed.Chain, v.roots, c.now); err != nil {
			return err
		}
	}
	if !ecdsa.VerifyASN1(c.leaf.key, signedBytes(c.signed.Payload), c.signed.Signature) {
		return fmt.Errorf("%w: certificate %s of %s", ErrSignature, c.leaf.Serial, c.leaf.Node)
	}
	return nil
}

// knowsChain reports whether the chain was verified with the node's last statement and
// no certificate above the leaf has expired since.
func (v *Verifier) knowsChain(c *candidate) bool {
	k := c.prev
	return k != nil && k.leaf != nil && k.epoch == v.epoch && !c.now.After(k.leaf.chainEnd) &&
		c.signed.sameChain(k.rec.Statement)
}

// accept records the statement as the last one of its node, on disk first.
func (v *Verifier) accept(c *candidate) error {
	rec := Record{
		ID: c.live.ID, Seq: c.stmt.Seq, Hash: HashPayload(c.signed.Payload),
		LowGeneration:  c.stmt.Keys[0].Generation,
		HighGeneration: c.stmt.Keys[len(c.stmt.Keys)-1].Generation,
		SPKI:           c.leaf.SPKI,
		Expires:        c.leaf.NotAfter.Add(v.cfg.Grace + ClockSkew),
		Addresses:      c.addresses,
		Statement:      c.signed, Live: c.live,
	}
	rec.Withdrawn = c.withdrawn()
	k := &known{rec: rec, stmt: c.stmt, leaf: c.leaf, epoch: v.epoch}
	if c.prev != nil {
		k.rec.Expires = times.Later(rec.Expires, c.prev.rec.Expires)
	}
	if c.needsSave() {
		if err := v.save(k.rec); err != nil {
			return err
		}
	}
	if c.revoked != nil {
		v.claims.release(c.revoked.claim())
	}
	var before Statement
	if c.prev != nil {
		before = c.prev.claim()
	}
	v.claims.replace(before, k.claim())
	if old := v.nodes[c.live.ID.UID]; old != nil {
		v.claims.releaseAddresses(c.live.ID, old.rec.Addresses, c.addresses)
	}
	v.claims.holdAddresses(c.live.ID, c.addresses)
	v.nodes[c.live.ID.UID] = k
	v.names[c.live.ID.Name] = c.live.ID.UID
	return nil
}

// needsSave reports whether the record on disk would say something else. Another
// signature over the same payload does not count, or a writer of API objects
// could make every node write to its disk.
func (c *candidate) needsSave() bool {
	if !c.repeat || c.prev.rec.Gone {
		return true
	}
	old := c.prev.rec
	if !slices.Equal(old.Live.PodCIDRs, c.live.PodCIDRs) || !slices.Equal(old.Live.Addresses, c.live.Addresses) ||
		!slices.Equal(old.Addresses, c.addresses) || old.Live.Created.IsZero() && !c.live.Created.IsZero() {
		return true
	}
	if c.signed.sameChain(old.Statement) {
		return false
	}
	if len(old.Statement.Chain) == 0 {
		return true
	}
	info, err := ParseCertificateInfo(old.Statement.Chain[0])
	return err != nil || info.Serial != c.leaf.Serial || info.Issuer != c.leaf.Issuer
}

func (v *Verifier) peer(c *candidate) Peer {
	return Peer{
		ID: c.live.ID, Seq: c.stmt.Seq, Keys: c.keys, Withdrawn: v.draining(c), RevokedGens: slices.Clone(c.stmt.RevokedGens),
		PodCIDRs: slices.Clone(c.stmt.PodCIDRs), Endpoints: slices.Clone(c.stmt.Endpoints),
		PSK: c.stmt.PSK, PSKPort: c.stmt.PSKPort,
		NotAfter: c.end, Until: c.end.Add(ClockSkew + v.cfg.Grace), Grace: c.grace,
		Certificate: c.leaf.CertificateInfo, Warnings: c.warnings,
	}
}
