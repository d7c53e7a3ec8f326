// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package keytest makes clusters for tests: a certificate authority in memory,
// nodes with real keys, certificates and statements, and a clock that moves when
// told. It makes keymgr.PeerKeys in the one way there is, by keymgr's Verify.
package keytest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/ca/memorystore"
	"github.com/sealane/sealane/keymgr/identity"
)

// TrustDomain is of every test cluster.
const TrustDomain = "6f1c9c0e-7d1f-4a53-9c55-3d1f3f0a5a11"

// Clock is a clock that stands still until it is moved.
type Clock struct {
	mu  sync.Mutex // guards now
	now time.Time
}

// NewClock returns a clock that shows 2 January 2026, 03:04:05 UTC.
func NewClock() *Clock {
	return &Clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
}

// Now returns the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Add moves the clock, back if d is negative.
func (c *Clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Cluster is a trust domain with its authority.
type Cluster struct {
	Clock     *Clock
	Authority *ca.Authority

	tb testing.TB
}

// NewCluster returns a cluster with an authority of its own.
func NewCluster(tb testing.TB) *Cluster {
	tb.Helper()
	clock := NewClock()
	return NewClusterWith(tb, clock, ca.Config{Store: memorystore.New(), Clock: clock.Now})
}

// NewClusterWith returns a cluster whose authority is opened with cfg.
func NewClusterWith(tb testing.TB, clock *Clock, cfg ca.Config) *Cluster {
	tb.Helper()
	cfg.TrustDomain = TrustDomain
	authority, err := ca.Open(context.Background(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return &Cluster{Clock: clock, Authority: authority, tb: tb}
}

// Node is a node of a cluster with its identity.
type Node struct {
	Live     keymgr.LiveNode
	Identity *identity.Identity
	// Input is what the node says about itself; tests may change it.
	Input identity.StatementInput

	tb testing.TB
}

// ID returns the identity that Node gives to a name.
func ID(name string) keymgr.NodeID {
	h := sha256.Sum256([]byte("uid of " + name))
	return keymgr.NodeID{Name: name, UID: fmt.Sprintf("%x-%x", h[:4], h[4:8])}
}

// Node returns a new node that has a certificate for its pod CIDRs and address and is ready to
// sign. Its address and its WireGuard key follow from its name alone.
func (c *Cluster) Node(name string, podCIDRs ...string) *Node {
	c.tb.Helper()
	h := sha256.Sum256([]byte("address of " + name))
	live := keymgr.LiveNode{
		ID:        ID(name),
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, h[0], h[1], h[2]})},
		Created:   c.Clock.Now(),
	}
	for _, p := range podCIDRs {
		live.PodCIDRs = append(live.PodCIDRs, netip.MustParsePrefix(p))
	}
	n := &Node{Live: live, Identity: c.Identity(live.ID, c.tb.TempDir()), tb: c.tb}
	c.Certify(n)
	n.Input = identity.StatementInput{
		Keys:      []identity.WGKey{WGKey(c.tb, name, 1, c.Clock.Now())},
		BasePort:  51871,
		Endpoints: live.Addresses,
		PodCIDRs:  live.PodCIDRs,
	}
	return n
}

// Identity opens a node's identity in dir, without a certificate.
func (c *Cluster) Identity(id keymgr.NodeID, dir string) *identity.Identity {
	c.tb.Helper()
	opened, err := identity.Open(identity.Config{
		Dir: dir, Node: id, TrustDomain: TrustDomain, Clock: c.Clock.Now,
	})
	if err != nil {
		c.tb.Fatal(err)
	}
	return opened
}

// Certify gives a node a certificate for its live pod CIDRs and addresses.
func (c *Cluster) Certify(n *Node) {
	c.tb.Helper()
	csr, err := n.Identity.CSR()
	if err != nil {
		c.tb.Fatal(err)
	}
	chain := c.Issue(csr, n.Live)
	if err := n.Identity.SetCertificate(chain, c.Authority.Bundle()); err != nil {
		c.tb.Fatal(err)
	}
}

// Issue approves and issues a certificate to a node for its certificate request.
func (c *Cluster) Issue(csr []byte, live keymgr.LiveNode) [][]byte {
	c.tb.Helper()
	request, policy, facts := Scene(csr, live, c.Clock.Now())
	order, err := approval.Approve(request, policy, facts)
	if err != nil {
		c.tb.Fatal(err)
	}
	chain, err := c.Authority.Issue(context.Background(), order)
	if err != nil {
		c.tb.Fatal(err)
	}
	return chain
}

// Scene returns a request of a node's agent, and policy and facts by which it is
// approved.
func Scene(csr []byte, live keymgr.LiveNode, now time.Time) (approval.Request, approval.Policy, approval.Facts) {
	pod := approval.Pod{
		Name: "agent-" + live.ID.Name, UID: "pod-" + live.ID.UID, NodeName: live.ID.Name,
		ServiceAccount: "sealane-agent", ControllerKind: "DaemonSet", ControllerUID: "ds-1",
	}
	request := approval.Request{
		SignerName: approval.SignerName,
		Username:   "system:serviceaccount:sealane-system:sealane-agent",
		Extra: map[string][]string{
			approval.ExtraNodeName: {live.ID.Name}, approval.ExtraNodeUID: {live.ID.UID},
			approval.ExtraPodName: {pod.Name}, approval.ExtraPodUID: {pod.UID},
		},
		CSR:    csr,
		Usages: []string{"digital signature", "client auth", "server auth"},
	}
	policy := approval.Policy{
		TrustDomain: TrustDomain, Namespace: "sealane-system",
		ServiceAccount: "sealane-agent", DaemonSetUID: "ds-1",
	}
	facts := approval.Facts{Now: now, Node: &live, Pod: &pod}
	return request, policy, facts
}

// Sign returns the node's next statement.
func (n *Node) Sign() keymgr.Signed {
	n.tb.Helper()
	s, err := n.Identity.Sign(n.Input)
	if err != nil {
		n.tb.Fatal(err)
	}
	return s
}

// Forge signs any payload with the node's key, as a node that does not obey would.
func (n *Node) Forge(payload []byte) keymgr.Signed {
	n.tb.Helper()
	cert, err := n.Identity.TLSCertificate()
	if err != nil {
		n.tb.Fatal(err)
	}
	key, ok := cert.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		n.tb.Fatalf("node key is a %T", cert.PrivateKey)
	}
	hash := sha256.Sum256(append([]byte("sealane-nodekey-v1\x00"), payload...))
	signature, err := ecdsa.SignASN1(rand.Reader, key, hash[:])
	if err != nil {
		n.tb.Fatal(err)
	}
	return keymgr.Signed{Payload: bytes.Clone(payload), Signature: signature, Chain: cert.Certificate}
}

// Edit returns the node's next statement with changes, signed all the same.
func (n *Node) Edit(change func(*keymgr.Statement)) keymgr.Signed {
	n.tb.Helper()
	stmt, err := keymgr.ParseStatement(n.Sign().Payload)
	if err != nil {
		n.tb.Fatal(err)
	}
	change(&stmt)
	payload, err := stmt.Encode()
	if err != nil {
		n.tb.Fatal(err)
	}
	return n.Forge(payload)
}

// VerifierConfig returns the configuration of a verifier on node self.
func (c *Cluster) VerifierConfig(self string) keymgr.VerifierConfig {
	return keymgr.VerifierConfig{
		TrustDomain: TrustDomain, Self: ID(self), Clock: c.Clock.Now, Grace: keymgr.DefaultGrace,
	}
}

// Verifier returns a verifier on node self that trusts the cluster's authority.
func (c *Cluster) Verifier(self string) *keymgr.Verifier {
	c.tb.Helper()
	return c.Open(c.VerifierConfig(self))
}

// Open returns a verifier with cfg that trusts the cluster's authority.
func (c *Cluster) Open(cfg keymgr.VerifierConfig) *keymgr.Verifier {
	c.tb.Helper()
	v, err := keymgr.NewVerifier(cfg)
	if err != nil {
		c.tb.Fatal(err)
	}
	if err := v.SetRoots(c.Authority.Bundle()); err != nil {
		c.tb.Fatal(err)
	}
	return v
}

// WGKey returns a key that follows from seed and generation alone.
func WGKey(tb testing.TB, seed string, generation uint64, created time.Time) identity.WGKey {
	tb.Helper()
	private := keymgr.PrivateKey(sha256.Sum256(fmt.Appendf(nil, "wireguard key %d of %s", generation, seed)))
	public, err := private.Public()
	if err != nil {
		tb.Fatal(err)
	}
	return identity.WGKey{Generation: generation, Private: private, Public: public, Created: created}
}

// PeerKey returns a valid key that follows from seed and generation alone, with
// ports from base.
func PeerKey(tb testing.TB, seed string, generation uint64, base uint16) keymgr.PeerKey {
	tb.Helper()
	c := NewCluster(tb)
	n := c.Node("keytest-peer")
	n.Input.Keys = []identity.WGKey{WGKey(tb, seed, generation, c.Clock.Now())}
	n.Input.BasePort = base
	peer, err := c.Verifier("keytest-self").Verify(n.Sign(), n.Live)
	if err != nil {
		tb.Fatal(err)
	}
	return peer.Keys[0]
}
