// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/sealane/sealane/internal/atomicfile"
)

// StatementLifetime is how long a statement is valid; it is refreshed well before.
const StatementLifetime = 72 * time.Hour

// StatementInput is what this node wants to say about itself.
type StatementInput struct {
	// Keys are the one or two generations to publish, oldest first.
	Keys []WGKey
	// RevokedGens are added to those that earlier statements revoked.
	RevokedGens []uint64
	// BasePort is the first of the four UDP ports; see Port.
	BasePort  uint16
	Endpoints []netip.Addr
	PodCIDRs  []netip.Prefix
	// PSK is PSKOff if empty.
	PSK     PSKMode
	PSKPort uint16
}

// Sign makes and signs the next statement. Its sequence number is on disk before
// Sign returns, hence before anybody else can see it.
func (id *Identity) Sign(in StatementInput) (Signed, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	s, err := id.signLocked(in)
	if err != nil {
		return Signed{}, fmt.Errorf("sign statement: %w", err)
	}
	return s, nil
}

func (id *Identity) signLocked(in StatementInput) (Signed, error) {
	now := id.cfg.Clock().UTC()
	if err := id.canSign(in, now); err != nil {
		return Signed{}, err
	}
	stmt := id.build(in, now)
	payload, err := stmt.Encode()
	if err != nil {
		return Signed{}, err
	}
	// Whatever a reader would not understand must not be signed.
	if stmt, err = ParseStatement(payload); err != nil {
		return Signed{}, err
	}
	signature, err := ecdsa.SignASN1(rand.Reader, id.key, signedBytes(payload))
	if err != nil {
		return Signed{}, err
	}
	signed := Signed{Payload: payload, Signature: signature, Chain: slices.Clone(id.chain), Continuity: id.continuityLocked()}
	data, err := json.Marshal(signed)
	if err != nil {
		return Signed{}, err
	}
	if err := atomicfile.Write(id.path(fileStatement), data, 0o600); err != nil {
		return Signed{}, err
	}
	id.signed, id.last = signed, &stmt
	return signed, nil
}

func (id *Identity) canSign(in StatementInput, now time.Time) error {
	if id.cert == nil {
		return ErrNoCertificate
	}
	if end := id.cert.info.NotAfter; !now.Before(end) {
		return fmt.Errorf("certificate: %w: %s", ErrExpired, stamp(end))
	}
	for _, p := range in.PodCIDRs {
		if !covered(p, id.cert.podCIDRs) {
			return fmt.Errorf("%w: %s is not in the certificate, which has %s", ErrPodCIDR, p, id.cert.podCIDRs)
		}
	}
	return nil
}

func (id *Identity) build(in StatementInput, now time.Time) Statement {
	issued := now.Truncate(time.Second)
	s := id.describe(in)
	s.Seq = uint64(max(now.UnixMilli(), 1))
	s.IssuedAt = issued
	s.NotAfter = id.notAfter(now)
	for i := range s.Keys {
		// A key made before the clock was set back begins now.
		s.Keys[i].NotBefore = earlier(s.Keys[i].NotBefore, issued)
		s.Keys[i].NotAfter = s.NotAfter
	}
	if id.last != nil {
		s.Seq = max(s.Seq, id.last.Seq+1)
		s.PrevSeq, s.PrevHash = id.last.Seq, HashPayload(id.signed.Payload)
	}
	return s
}

// describe fills in what does not depend on the time.
func (id *Identity) describe(in StatementInput) Statement {
	s := Statement{
		Type: StatementType, TrustDomain: id.cfg.TrustDomain,
		NodeName: id.cfg.Node.Name, NodeUID: id.cfg.Node.UID,
		RevokedGens: id.revoked(in), Endpoints: in.Endpoints, PodCIDRs: in.PodCIDRs,
		PSK: in.PSK, PSKPort: in.PSKPort,
	}
	if s.PSK == "" {
		s.PSK = PSKOff
	}
	for _, k := range in.Keys {
		s.Keys = append(s.Keys, StatementKey{
			Generation: k.Generation, Key: k.Public, NotBefore: k.Created.UTC(),
			Ports: Ports{Port(in.BasePort, k.Generation, 0), Port(in.BasePort, k.Generation, 1)},
		})
	}
	return s
}

// revoked adds those generations to revoke that the last statement revoked, the newest
// of them if they get too many: a reader that misses a statement has to find them in
// the next.
func (id *Identity) revoked(in StatementInput) []uint64 {
	if id.last == nil {
		return in.RevokedGens
	}
	all := slices.DeleteFunc(slices.Clone(id.last.RevokedGens), func(gen uint64) bool {
		return slices.Contains(in.RevokedGens, gen) || slices.ContainsFunc(in.Keys, func(k WGKey) bool { return k.Generation == gen })
	})
	all = all[max(0, min(len(all), len(all)+len(in.RevokedGens)-maxRevokedGens)):]
	return append(all, in.RevokedGens...)
}

// Last returns the statement that was signed last, false if there is none. Publish
// it again if the API server has another one, for a crash may have come between.
func (id *Identity) Last() (Signed, bool) {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.signed, id.last != nil
}

// NeedsStatement returns why a new statement should be signed now; "" if the last
// one says what in says, with the current certificate, and has time left.
func (id *Identity) NeedsStatement(in StatementInput) string {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.last == nil {
		return NeedFirst
	}
	last, want := id.last, id.describe(in)
	switch {
	case !slices.EqualFunc(last.Keys, want.Keys, sameKey) || !slices.Equal(last.RevokedGens, want.RevokedGens):
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

// dueLocked tells whether the last statement should be refreshed. One that ends with
// the certificate is not: the next one could not last longer.
func (id *Identity) dueLocked() bool {
	now := id.cfg.Clock()
	if id.cert == nil || !id.notAfter(now).After(id.last.NotAfter) {
		return false
	}
	return !now.Before(renewalTime(id.last.IssuedAt, id.last.NotAfter, string(id.signed.Payload)))
}

// notAfter returns the end of a statement that is issued now.
func (id *Identity) notAfter(now time.Time) time.Time {
	return earlier(now.UTC().Truncate(time.Second).Add(StatementLifetime), id.cert.info.NotAfter.UTC())
}

func sameKey(a, b StatementKey) bool {
	return a.Generation == b.Generation && a.Key == b.Key && a.Ports == b.Ports
}

// loadStatement reads the last statement. Its sequence number matters, so that one
// that cannot be read is an error.
func (id *Identity) loadStatement() error {
	data, err := os.ReadFile(id.path(fileStatement))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var signed Signed
	if err := json.Unmarshal(data, &signed); err != nil {
		return id.corruptStatement(err)
	}
	stmt, err := ParseStatement(signed.Payload)
	if err != nil {
		return id.corruptStatement(err)
	}
	id.signed, id.last = signed, &stmt
	return nil
}

func (id *Identity) corruptStatement(err error) error {
	return fmt.Errorf("%w: %s: %w (delete it if this node's clock is right)", ErrCorrupt, id.path(fileStatement), err)
}
