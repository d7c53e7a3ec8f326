// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/sealane/sealane/internal/atomicfile"
	"github.com/sealane/sealane/internal/times"
	"github.com/sealane/sealane/keymgr"
)

// StatementInput is what this node wants to say about itself.
type StatementInput struct {
	// Keys holds the one or two generations to publish, oldest first.
	Keys []WGKey
	// RevokedGens are generations to revoke besides those that earlier statements revoked.
	RevokedGens []uint64
	// BasePort is the first of the node's four UDP ports; see keymgr.Port.
	BasePort uint16
	// Endpoints are the addresses that other nodes send to; at least one.
	Endpoints []netip.Addr
	// PodCIDRs are the node's pod ranges; the certificate must cover them.
	PodCIDRs []netip.Prefix
	// PSK is the preshared-key mode; empty means keymgr.PSKOff.
	PSK keymgr.PSKMode
	// PSKPort is the TCP port of the preshared-key exchange; 0 means that there is none.
	PSKPort uint16
}

// Sign builds and signs the next statement. The statement is on disk before Sign
// returns, so nobody else can see its sequence number before it is stored.
func (id *Identity) Sign(in StatementInput) (keymgr.Signed, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	s, err := id.signLocked(in)
	if err != nil {
		return keymgr.Signed{}, fmt.Errorf("sign statement: %w", err)
	}
	return s, nil
}

func (id *Identity) signLocked(in StatementInput) (keymgr.Signed, error) {
	now := id.cfg.Clock().UTC()
	if err := id.canSign(in, now); err != nil {
		return keymgr.Signed{}, err
	}
	stmt := id.build(in, now)
	payload, err := stmt.Encode()
	if err != nil {
		return keymgr.Signed{}, err
	}
	// Do not sign what a reader would refuse.
	if stmt, err = keymgr.ParseStatement(payload); err != nil {
		return keymgr.Signed{}, err
	}
	signature, err := keymgr.SignPayload(id.key, payload)
	if err != nil {
		return keymgr.Signed{}, err
	}
	signed := keymgr.Signed{Payload: payload, Signature: signature, Chain: slices.Clone(id.chain), Continuity: id.continuityLocked()}
	data, err := json.Marshal(signed)
	if err != nil {
		return keymgr.Signed{}, err
	}
	if err := atomicfile.Write(id.path(fileStatement), data, 0o600); err != nil {
		return keymgr.Signed{}, err
	}
	id.signed, id.last = signed, &stmt
	return signed, nil
}

func (id *Identity) canSign(in StatementInput, now time.Time) error {
	if id.cert == nil {
		return ErrNoCertificate
	}
	if end := id.cert.NotAfter; !now.Before(end) {
		return fmt.Errorf("certificate: %w: %s", keymgr.ErrExpired, times.Stamp(end))
	}
	for _, p := range in.PodCIDRs {
		if !id.cert.Covers(p) {
			return fmt.Errorf("%w: %s is not in the certificate, which has %s", keymgr.ErrPodCIDR, p, id.cert.PodCIDRs)
		}
	}
	return nil
}

// build numbers the statement by the clock, and above the last one even if the clock was set
// back. A last number from the future was signed with the clock ahead: readers refuse it, so
// that numbers begin again at the clock, unless the certificate shows that the clock is behind.
func (id *Identity) build(in StatementInput, now time.Time) keymgr.Statement {
	issued := now.Truncate(time.Second)
	s := id.describe(in)
	s.Seq = uint64(max(now.UnixMilli(), 1))
	s.IssuedAt = issued
	s.NotAfter = id.notAfter(now)
	for i := range s.Keys {
		// A key made before the clock was set back begins now.
		s.Keys[i].NotBefore = times.Earlier(s.Keys[i].NotBefore, issued)
		s.Keys[i].NotAfter = s.NotAfter
	}
	if id.last != nil {
		for _, seq := range []uint64{id.last.Seq, id.last.PrevSeq} {
			if keymgr.CheckNumber(seq, now) == nil || now.Before(id.cert.NotBefore) {
				s.Seq = max(s.Seq, seq+1)
			}
		}
		s.PrevSeq, s.PrevHash = id.last.Seq, keymgr.HashPayload(id.signed.Payload)
	}
	return s
}

// describe returns the part of a statement that does not depend on the time.
func (id *Identity) describe(in StatementInput) keymgr.Statement {
	s := keymgr.Statement{
		Type: keymgr.StatementType, TrustDomain: id.cfg.TrustDomain,
		NodeName: id.cfg.Node.Name, NodeUID: id.cfg.Node.UID,
		RevokedGens: id.revoked(in), Endpoints: in.Endpoints, PodCIDRs: in.PodCIDRs,
		PSK: in.PSK, PSKPort: in.PSKPort,
	}
	if s.PSK == "" {
		s.PSK = keymgr.PSKOff
	}
	for _, k := range in.Keys {
		s.Keys = append(s.Keys, keymgr.StatementKey{
			Generation: k.Generation, Key: k.Public, NotBefore: k.Created.UTC(),
			Ports: keymgr.Ports{keymgr.Port(in.BasePort, k.Generation, 0), keymgr.Port(in.BasePort, k.Generation, 1)},
		})
	}
	return s
}

// revoked returns the generations to revoke: those of in, and the newest of those that
// the last statement revoked, as many as fit. A reader that missed a statement has to
// find them in the next one.
func (id *Identity) revoked(in StatementInput) []uint64 {
	if id.last == nil {
		return in.RevokedGens
	}
	all := slices.DeleteFunc(slices.Clone(id.last.RevokedGens), func(gen uint64) bool {
		return slices.Contains(in.RevokedGens, gen) || slices.ContainsFunc(in.Keys, func(k WGKey) bool { return k.Generation == gen })
	})
	all = all[max(0, min(len(all), len(all)+len(in.RevokedGens)-keymgr.MaxRevokedGens)):]
	return append(all, in.RevokedGens...)
}

// Last returns the statement that was signed last, or false if there is none. If the
// API server has another one, publish this one again: the node may have crashed between
// signing and publishing.
func (id *Identity) Last() (keymgr.Signed, bool) {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.signed, id.last != nil
}

// NeedsStatement returns why to sign a new statement now. "" means that the last one
// says what in says, was signed with the current certificate and has time left.
func (id *Identity) NeedsStatement(in StatementInput) string {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.last == nil {
		return NeedFirst
	}
	last, want := id.last, id.describe(in)
	switch {
	case !slices.EqualFunc(last.Keys, want.Keys, keymgr.StatementKey.Same) || !slices.Equal(last.RevokedGens, want.RevokedGens):
		return NeedKeys
	case !slices.Equal(last.PodCIDRs, want.PodCIDRs):
		return NeedPodCIDRs
	case !slices.Equal(last.Endpoints, want.Endpoints):
		return NeedEndpoints
	case last.PSK != want.PSK || last.PSKPort != want.PSKPort:
		return NeedPSK
	case id.cert != nil && !slices.EqualFunc(id.signed.Chain, id.chain, bytes.Equal):
		return NeedCertificate
	case id.dueLocked():
		return NeedDue
	}
	return ""
}

// dueLocked reports whether to renew the last statement. One that ends with the
// certificate is never due, because the next one could not last longer. One whose number
// readers may refuse is due as soon as the clock permits a better one.
func (id *Identity) dueLocked() bool {
	now := id.cfg.Clock()
	if keymgr.CheckNumber(id.last.Seq, now) != nil {
		return id.cert != nil && !now.Before(id.cert.NotBefore)
	}
	if id.last.PrevSeq > id.last.Seq && keymgr.CheckNumber(id.last.PrevSeq, now) == nil {
		return true // it was signed with the clock behind
	}
	if id.cert == nil || !id.notAfter(now).After(id.last.NotAfter) {
		return false
	}
	return !now.Before(renewalTime(id.last.IssuedAt, id.last.NotAfter, string(id.signed.Payload)))
}

// notAfter returns when a statement that is issued now ends.
func (id *Identity) notAfter(now time.Time) time.Time {
	return times.Earlier(now.UTC().Truncate(time.Second).Add(keymgr.StatementLifetime), id.cert.NotAfter.UTC())
}

// loadStatement reads the last statement. One that cannot be read is an error, because
// the next sequence number depends on it.
func (id *Identity) loadStatement() error {
	data, err := os.ReadFile(id.path(fileStatement))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var signed keymgr.Signed
	if err := json.Unmarshal(data, &signed); err != nil {
		return id.corruptStatement(err)
	}
	stmt, err := keymgr.ParseStatement(signed.Payload)
	if err != nil {
		return id.corruptStatement(err)
	}
	id.signed, id.last = signed, &stmt
	return nil
}

func (id *Identity) corruptStatement(err error) error {
	return fmt.Errorf("%w: %s: %w (delete it if this node's clock is right)", keymgr.ErrCorrupt, id.path(fileStatement), err)
}
