// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"net/url"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/perf/scale/internal/price"
	"github.com/sealane/sealane/perf/scale/internal/sim"
	"github.com/sealane/sealane/perf/scale/internal/wire"
)

const trustDomain = "6f1c9c0e-7d1f-4a53-9c55-3d1f3f0a5a11"

// signatureContext is what a node's key signs before a statement.
const signatureContext = "sealane-nodekey-v1\x00"

// author is a node as the others know it: its key, certificate and statements are
// real. Unless it is observed, it does by the clock what a node would do.
type author struct {
	index  int
	live   keymgr.LiveNode
	key    *ecdsa.PrivateKey
	chain  [][]byte
	keys   []keymgr.StatementKey // in the newest statement
	seq    uint64
	signed keymgr.Signed
	line   []byte // the watch's
	up     bool
	self   *node // if it is observed
}

func (a *author) newest() keymgr.StatementKey { return a.keys[len(a.keys)-1] }

// end is what it brings to an exchange.
func (a *author) end() price.End {
	return price.End{Node: a.live.ID, Chain: a.chain, Key: a.key, WireGuard: a.newest().Key}
}

// registry is the authority and everybody's certificates.
type registry struct {
	clock     *sim.Clock
	authority *ca.Authority
}

// issue approves and signs a request as the controller does.
func (r *registry) issue(csr []byte, live keymgr.LiveNode) ([][]byte, error) {
	pod := approval.Pod{
		Name: "agent-" + live.ID.Name, UID: "pod-" + live.ID.UID, NodeName: live.ID.Name,
		ServiceAccount: "sealane-agent", ControllerKind: "DaemonSet", ControllerUID: "daemonset",
	}
	order, err := approval.Approve(approval.Request{
		SignerName: approval.SignerName, Username: "system:serviceaccount:sealane-system:sealane-agent", CSR: csr,
		Extra: map[string][]string{
			approval.ExtraNodeName: {live.ID.Name}, approval.ExtraNodeUID: {live.ID.UID}, approval.ExtraPodName: {pod.Name}, approval.ExtraPodUID: {pod.UID},
		},
		Usages: []string{"digital signature", "client auth", "server auth"},
	}, approval.Policy{
		TrustDomain: trustDomain, Namespace: "sealane-system", ServiceAccount: "sealane-agent", DaemonSetUID: "daemonset",
	}, approval.Facts{Now: r.clock.Now(), Node: &live, Pod: &pod})
	if err != nil {
		return nil, err
	}
	return r.authority.Issue(context.Background(), order)
}

// author makes a node with its first statement. Names, ranges and addresses follow
// from the index.
func (r *registry) author(index int) (*author, error) {
	hi, lo := byte(index>>8), byte(index)
	h := sha256.Sum256([]byte{hi, lo})
	a := &author{index: index, up: true, live: keymgr.LiveNode{
		ID: keymgr.NodeID{
			Name: fmt.Sprintf("node-%05d.example.internal", index), UID: fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16]),
		},
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{172, 16, hi, lo})},
		Created:   time.Unix(int64(1+index), 0).UTC(),
		PodCIDRs:  []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, hi, lo, 0}), 24)},
	}}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	a.key = key
	if err := r.certify(a); err != nil {
		return nil, err
	}
	if err := a.generation(r.clock.Now().Add(-time.Hour)); err != nil {
		return nil, err
	}
	return a, a.sign(r.clock.Now())
}

func (r *registry) certify(a *author) error {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		URIs: []*url.URL{a.live.ID.URI(trustDomain)}, SignatureAlgorithm: x509.ECDSAWithSHA256,
	}, a.key)
	if err != nil {
		return err
	}
	a.chain, err = r.issue(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), a.live)
	return err
}

// generation adds a WireGuard key to the next statement.
func (a *author) generation(now time.Time) error {
	var private keymgr.PrivateKey
	if _, err := rand.Read(private[:]); err != nil {
		return err
	}
	public, err := private.Public()
	if err != nil {
		return err
	}
	now = now.UTC().Truncate(time.Second)
	k := keymgr.StatementKey{Generation: uint64(now.Unix()), Key: public, NotBefore: now}
	if len(a.keys) > 0 {
		k.Generation = a.newest().Generation + 1
	}
	k.Ports = keymgr.Ports{
		keymgr.Port(overlay.DefaultBasePort, k.Generation, 0), keymgr.Port(overlay.DefaultBasePort, k.Generation, 1),
	}
	a.keys = append(a.keys, k)
	return nil
}

// sign makes the next statement.
func (a *author) sign(now time.Time) error {
	now = now.UTC()
	s := keymgr.Statement{
		Type: keymgr.StatementType, TrustDomain: trustDomain, NodeName: a.live.ID.Name, NodeUID: a.live.ID.UID,
		Seq: max(a.seq+1, uint64(now.UnixMilli())), IssuedAt: now.Truncate(time.Second), Endpoints: a.live.Addresses, PodCIDRs: a.live.PodCIDRs,
		PSK: keymgr.PSKRequired, PSKPort: 51875,
	}
	s.NotAfter = s.IssuedAt.Add(keymgr.StatementLifetime)
	for _, k := range a.keys {
		k.NotAfter = s.NotAfter
		s.Keys = append(s.Keys, k)
	}
	if a.seq > 0 {
		s.PrevSeq, s.PrevHash = a.seq, keymgr.HashPayload(a.signed.Payload)
	}
	payload, err := s.Encode()
	if err != nil {
		return err
	}
	hash := sha256.Sum256(append([]byte(signatureContext), payload...))
	signature, err := ecdsa.SignASN1(rand.Reader, a.key, hash[:])
	if err != nil {
		return err
	}
	return a.say(keymgr.Signed{Payload: payload, Signature: signature, Chain: a.chain}, now)
}

// say makes a statement the newest.
func (a *author) say(s keymgr.Signed, now time.Time) error {
	stmt, err := keymgr.ParseStatement(s.Payload)
	if err != nil {
		return err
	}
	a.signed, a.keys, a.seq = s, stmt.Keys, stmt.Seq
	a.line, err = wire.Encode(a.live.ID, s, now)
	return err
}
