// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sealane/sealane/internal/canonical"
	"github.com/sealane/sealane/internal/times"
	"github.com/sealane/sealane/keymgr/extension"
	"github.com/sealane/sealane/keymgr/nodenet"
)

// The checks of one candidate, in the order in which verifyLocked runs them.

// checkNames compares the names in statement, certificate, live Node and cluster.
func (v *Verifier) checkNames(c *candidate) error {
	for _, td := range []string{c.leaf.TrustDomain, c.stmt.TrustDomain} {
		if td != v.cfg.TrustDomain {
			return fmt.Errorf("%w: %q instead of %q", ErrTrustDomain, td, v.cfg.TrustDomain)
		}
	}
	if c.leaf.Node != c.live.ID {
		return fmt.Errorf("%w: certificate is of node %s", ErrIdentity, c.leaf.Node)
	}
	if c.stmt.ID() != c.live.ID {
		return fmt.Errorf("%w: statement is of node %s", ErrIdentity, c.stmt.ID())
	}
	return nil
}

// checkSequence compares with the high-water mark. Only hashes of payloads are
// compared: a signature has more than one valid form. A mark from the future, of an earlier
// version or of a time when this clock was ahead, bars nothing.
func (v *Verifier) checkSequence(c *candidate) error {
	if c.stmt.Seq == 0 {
		return fmt.Errorf("%w: seq is 0", ErrFormat)
	}
	hash := HashPayload(c.signed.Payload)
	c.repeat = c.prev != nil && hash == c.prev.rec.Hash
	if c.prev == nil || c.repeat {
		return nil
	}
	mark := c.prev.rec
	barred := CheckNumber(mark.Seq, c.now) == nil
	if barred && c.stmt.Seq < mark.Seq {
		return fmt.Errorf("%w: %d after %d", ErrReplay, c.stmt.Seq, mark.Seq)
	}
	if barred && c.stmt.Seq == mark.Seq {
		return fmt.Errorf("%w: %d with hash %s and %s", ErrFork, mark.Seq, mark.Hash, hash)
	}
	if c.stmt.PrevSeq < mark.Seq || c.stmt.PrevSeq == mark.Seq && c.stmt.PrevHash != mark.Hash {
		c.warn(WarnHistory, "statement %d follows %d (%s), but the last one seen was %d (%s)",
			c.stmt.Seq, c.stmt.PrevSeq, c.stmt.PrevHash, mark.Seq, mark.Hash)
	}
	return nil
}

// checkTimes checks the lifetimes of statement and certificate, and that the sequence number
// is not from the future, unless an earlier version has accepted it. After they expire, what
// was accepted before stays for the grace time, and nothing new is accepted.
func (v *Verifier) checkTimes(c *candidate) error {
	cert := c.leaf.CertificateInfo
	if !c.stmt.IssuedAt.Before(c.stmt.NotAfter) {
		return fmt.Errorf("%w: notAfter %s is not after issuedAt %s", ErrLifetime, times.Stamp(c.stmt.NotAfter), times.Stamp(c.stmt.IssuedAt))
	}
	if c.stmt.NotAfter.After(cert.NotAfter.Add(v.cfg.Grace)) {
		return fmt.Errorf("%w: notAfter %s outlives the certificate, which ends %s", ErrLifetime, times.Stamp(c.stmt.NotAfter), times.Stamp(cert.NotAfter))
	}
	if from := times.Later(c.stmt.IssuedAt, cert.NotBefore); from.After(c.now.Add(ClockSkew)) {
		return fmt.Errorf("%w: valid from %s, but this node's clock says %s", ErrNotYetValid, times.Stamp(from), times.Stamp(c.now))
	}
	if err := CheckNumber(c.stmt.Seq, c.now); err != nil && !c.repeat {
		return err
	}
	c.end = times.Earlier(c.stmt.NotAfter, cert.NotAfter)
	if !c.now.After(c.end.Add(ClockSkew)) {
		return nil
	}
	if !v.graceful(c, c.end) {
		return fmt.Errorf("%w: %s, now %s", ErrExpired, times.Stamp(c.end), times.Stamp(c.now))
	}
	c.grace = true
	return nil
}

// graceful reports whether something that ended may still serve this node.
func (v *Verifier) graceful(c *candidate, end time.Time) bool {
	return c.repeat && !c.prev.rec.Gone && !c.now.After(end.Add(ClockSkew+v.cfg.Grace))
}

// checkGenerations: one generation, or two consecutive ones; neither end goes
// back, and no generation changes its key.
func (v *Verifier) checkGenerations(c *candidate) error {
	keys := c.stmt.Keys
	low, high := keys[0].Generation, keys[len(keys)-1].Generation
	if low == 0 || high < low || high-low != uint64(len(keys)-1) {
		return fmt.Errorf("%w: %d to %d with %d keys", ErrGeneration, low, high, len(keys))
	}
	for _, k := range keys {
		if slices.Contains(c.stmt.RevokedGens, k.Generation) {
			return fmt.Errorf("%w: %d is listed and revoked", ErrGeneration, k.Generation)
		}
	}
	if c.prev == nil {
		return nil
	}
	if low < c.prev.rec.LowGeneration || high < c.prev.rec.HighGeneration {
		return fmt.Errorf("%w: %d to %d after %d to %d", ErrGeneration, low, high, c.prev.rec.LowGeneration, c.prev.rec.HighGeneration)
	}
	for _, old := range c.prev.stmt.Keys {
		for _, k := range keys {
			if k.Generation == old.Generation && k.Key != old.Key {
				return fmt.Errorf("%w: key of %d changed from %s to %s", ErrGeneration, k.Generation, old.Key, k.Key)
			}
		}
	}
	return nil
}

// checkKeys checks that the public keys are good and belong to no other node, and takes
// those that are valid now.
func (v *Verifier) checkKeys(c *candidate) error {
	reason := ErrExpired
	for i, k := range c.stmt.Keys {
		if err := v.checkKey(c, i); err != nil {
			return err
		}
		if !k.NotBefore.Before(k.NotAfter) {
			return fmt.Errorf("%w: key %d ends %s before it begins %s", ErrLifetime, k.Generation, times.Stamp(k.NotAfter), times.Stamp(k.NotBefore))
		}
		if k.NotBefore.After(c.now.Add(ClockSkew)) {
			reason = ErrNotYetValid
			continue
		}
		if c.now.After(k.NotAfter.Add(ClockSkew)) {
			if !v.graceful(c, k.NotAfter) {
				continue
			}
			c.grace = true
		}
		c.keys = append(c.keys, k.verified())
	}
	if len(c.keys) == 0 {
		return fmt.Errorf("%w: none of the keys is valid at %s", reason, times.Stamp(c.now))
	}
	return nil
}

func (v *Verifier) checkKey(c *candidate, i int) error {
	k := c.stmt.Keys[i].Key
	// A key that was accepted before is a good point; that check costs the most.
	if !c.repeat {
		if err := k.check(); err != nil {
			return err
		}
	}
	if slices.Contains(v.keys, k) {
		return fmt.Errorf("%w: %s", ErrOwnKey, k)
	}
	if i > 0 && c.stmt.Keys[0].Key == k {
		return fmt.Errorf("%w: %s in two generations", ErrDuplicateKey, k)
	}
	return v.claims.checkKey(k, c.live.ID)
}

// checkPorts: every device of the node listens on a UDP port of its own.
func (v *Verifier) checkPorts(c *candidate) error {
	var seen []uint16
	for _, k := range c.stmt.Keys {
		for _, p := range k.Ports {
			if p == 0 || slices.Contains(seen, p) {
				return fmt.Errorf("%w: %d of key %d is zero or used twice", ErrPorts, p, k.Generation)
			}
			seen = append(seen, p)
		}
	}
	return nil
}

// checkEndpoints: the endpoints are addresses of the live Node. If an address leaves the
// Node later, the lane stays up; the node will publish a new statement.
func (v *Verifier) checkEndpoints(c *candidate) error {
	if len(c.stmt.Endpoints) == 0 {
		return fmt.Errorf("%w: there is none", ErrEndpoint)
	}
	for _, a := range c.stmt.Endpoints {
		if !canonical.Address(a) {
			return fmt.Errorf("%w: %q is no plain address", ErrEndpoint, a)
		}
		in := func(r netip.Prefix) bool { return r.Contains(a) }
		if slices.Contains(c.live.Addresses, a) || slices.ContainsFunc(v.cfg.AddressRanges, in) {
			continue
		}
		if !c.repeat {
			return fmt.Errorf("%w: %s is none of %s", ErrEndpoint, a, c.live.Addresses)
		}
		c.warn(WarnEndpoint, "endpoint %s is no longer one of %s", a, c.live.Addresses)
	}
	return nil
}

// checkPodCIDRs: certificate and live Node say that the pod ranges are the node's, and no
// other node has them.
func (v *Verifier) checkPodCIDRs(c *candidate) error {
	if err := extension.CheckPrefixes(c.stmt.PodCIDRs); err != nil {
		return fmt.Errorf("%w: %w", ErrPodCIDR, err)
	}
	for _, p := range c.stmt.PodCIDRs {
		if !c.leaf.Covers(p) {
			return fmt.Errorf("%w: %s is not in the certificate, which has %s", ErrPodCIDR, p, c.leaf.PodCIDRs)
		}
		if !covered(p, c.live.PodCIDRs) {
			return fmt.Errorf("%w: %s is not in the Node, which has %s", ErrPodCIDR, p, c.live.PodCIDRs)
		}
		if slices.ContainsFunc(v.cidrs, p.Overlaps) {
			return fmt.Errorf("%w: %s overlaps one of this node's own %s", ErrPodCIDROverlap, p, v.cidrs)
		}
		if err := v.claims.checkPrefix(p, c.live.ID); err != nil {
			return err
		}
	}
	return nil
}

// checkPSK: a peer without preshared keys cannot talk a node that requires them out of it.
func (v *Verifier) checkPSK(c *candidate) error {
	if !c.stmt.PSK.valid() {
		return fmt.Errorf("%w: unknown mode %q", ErrPSK, c.stmt.PSK)
	}
	if !v.cfg.PSK.agrees(c.stmt.PSK) {
		return fmt.Errorf("%w: node has %q, this node has %q", ErrPSK, c.stmt.PSK, v.cfg.PSK)
	}
	return nil
}

func (c *candidate) warn(code, format string, args ...any) {
	c.warnings = append(c.warnings, Warning{Code: code, Text: fmt.Sprintf(format, args...)})
}

// covered reports whether p lies within one of the ranges.
func covered(p netip.Prefix, ranges []netip.Prefix) bool {
	return slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return nodenet.Within(p, r) })
}

func compareIDs(a, b NodeID) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
}
