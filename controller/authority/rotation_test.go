// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package authority

import (
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sealane/sealane/controller/controllertest"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/markstore"
	"github.com/sealane/sealane/keymgr/renewal"
	"github.com/sealane/sealane/keymgr/rootchange"
)

// member is a node with what its agent has: a real identity, a real verifier.
type member struct {
	w        *controllertest.World
	live     keymgr.LiveNode
	dir      string
	identity *identity.Identity
	verifier *keymgr.Verifier
	input    identity.StatementInput
	bundle   []byte
	request  string // that waits for its answer
	asleep   bool
	durable  bool // its marks outlive a restart
}

func join(t *testing.T, w *controllertest.World, i int) *member {
	t.Helper()
	name := fmt.Sprintf("n%02d", i)
	w.AddNode(name, "uid-"+name, fmt.Sprintf("10.244.%d.0/24", i))
	node := w.Nodes[name]
	node.Ready = true
	node.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}
	w.Nodes[name] = node
	m := &member{
		w: w, dir: t.TempDir(),
		live: keymgr.LiveNode{ID: keymgr.NodeID{Name: name, UID: node.UID}, PodCIDRs: node.PodCIDRs, Addresses: node.Addresses, Created: time.Unix(1, 0)},
	}
	m.start(t)
	return m
}

// start is what an agent does when it comes up, also after a reboot.
func (m *member) start(t *testing.T) {
	t.Helper()
	clock := func() time.Time { return m.w.Now }
	var err error
	m.identity, err = identity.Open(identity.Config{
		Dir: filepath.Join(m.dir, "keys"), Node: m.live.ID, TrustDomain: controllertest.TrustDomain, Clock: clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := keymgr.VerifierConfig{
		TrustDomain: controllertest.TrustDomain, Self: m.live.ID, Clock: clock, Grace: keymgr.DefaultGrace, StrictContinuity: true,
	}
	if m.durable {
		cfg.Marks = markstore.New(filepath.Join(m.dir, "peers"))
	}
	m.verifier, err = keymgr.NewVerifier(cfg)
	if err != nil {
		t.Fatal(err)
	}
	key, err := m.identity.WGKeys().Ensure()
	if err != nil {
		t.Fatal(err)
	}
	m.input = identity.StatementInput{Keys: []identity.WGKey{key}, BasePort: 51871, Endpoints: m.live.Addresses, PodCIDRs: m.live.PodCIDRs}
}

// turn is one look of an agent at the cluster.
func (m *member) turn(t *testing.T) {
	t.Helper()
	s, _ := m.w.Snapshot()
	if len(s.Bundle) == 0 || m.asleep {
		return
	}
	if err := m.verifier.SetRoots(s.Bundle); err != nil {
		t.Fatal(err)
	}
	m.bundle = s.Bundle
	m.report(t)
	m.certify(t, s)
	if m.identity.NeedsStatement(m.input) != "" {
		if cert, ok := m.identity.Certificate(); ok && m.w.Now.Before(cert.NotAfter) {
			if _, err := m.identity.Sign(m.input); err != nil {
				t.Fatal(err)
			}
		}
	}
	if signed, ok := m.identity.Last(); ok {
		m.w.NodeKeys[m.live.ID.Name], m.w.Claims[m.live.ID.Name] = signed, m.live.ID.UID
	}
}

func (m *member) report(t *testing.T) {
	t.Helper()
	hash, ok := m.verifier.Bundle()
	if !ok {
		t.Fatal("no bundle in use")
	}
	m.w.Reports[m.live.ID.Name] = hash.String()
}

// certify asks for a certificate if one is needed, and takes what was issued.
func (m *member) certify(t *testing.T, s cluster.Snapshot) {
	t.Helper()
	if m.request != "" {
		if v := m.w.Verdicts[m.request]; m.w.Request(m.request).Denied {
			t.Fatalf("%s is denied a certificate: %+v", m.live.ID.Name, v)
		}
		if r := m.w.Request(m.request); len(r.Certificate) > 0 {
			chain, err := keymgr.DecodeChain(r.Certificate)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.identity.SetCertificate(chain, s.Bundle); err != nil {
				t.Fatalf("%s: %v", m.live.ID.Name, err)
			}
			m.request = ""
		}
		return
	}
	why := m.identity.NeedsCertificate(m.live.PodCIDRs)
	if why == "" {
		var window *renewal.Window
		if len(s.Trust.Renewal) > 0 {
			w, err := renewal.ParseWindow(s.Trust.Renewal)
			if err != nil {
				t.Fatal(err)
			}
			window = &w
		}
		reason, at := m.identity.NeedsRoot(s.Bundle, window)
		if reason == "" || m.w.Now.Before(at) {
			return
		}
	}
	csr, err := m.identity.CSR()
	if err != nil {
		t.Fatal(err)
	}
	m.request = m.w.Ask(m.live.ID.Name, controllertest.NewKey(t))
	r := m.w.Request(m.request)
	r.CSR, r.Validity = csr, approval.DefaultLeafLifetime
}

// town is a cluster of members with its controller.
type town struct {
	t       *testing.T
	w       *controllertest.World
	worker  *worker
	members []*member
	lost    int // pairs that stopped to believe each other
}

func newTown(t *testing.T, n int) *town {
	t.Helper()
	w := controllertest.NewWorld(t)
	w.Reports = map[string]string{}
	town := &town{t: t, w: w, worker: newTestWorker(t, w)}
	for i := range n {
		town.members = append(town.members, join(t, w, i))
	}
	return town
}

// pass is a second in which the controller and all agents take their turns.
func (c *town) pass(d time.Duration) {
	c.t.Helper()
	c.w.Now = c.w.Now.Add(d)
	if err := c.worker.pass(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	for _, m := range c.members {
		m.turn(c.t)
	}
	answered := c.w.AllRequests[:0]
	for _, r := range c.w.AllRequests {
		if len(r.Certificate) == 0 || c.w.Now.Sub(r.Created) < time.Hour {
			answered = append(answered, r)
		}
	}
	c.w.AllRequests = answered
}

// believe lets every node that is awake verify every other one's NodeKey.
func (c *town) believe() {
	c.t.Helper()
	s, _ := c.w.Snapshot()
	for _, reader := range c.members {
		if reader.asleep {
			continue
		}
		for _, m := range c.members {
			if m == reader || m.asleep {
				continue
			}
			p, err := reader.verifier.Verify(s.NodeKeys[m.live.ID.Name], m.live)
			if err != nil {
				c.lost++
				c.t.Errorf("%s does not believe %s: %v", reader.live.ID.Name, m.live.ID.Name, err)
			} else if len(p.Warnings) > 0 || p.Grace {
				c.t.Errorf("%s is warned of %s: %v, grace %t", reader.live.ID.Name, m.live.ID.Name, p.Warnings, p.Grace)
			}
			if c.lost > 5 {
				c.t.FailNow()
			}
		}
	}
}

func (c *town) phase() rootchange.Phase {
	c.t.Helper()
	status, err := c.worker.authority.Status()
	if err != nil {
		c.t.Fatal(err)
	}
	return status.Stage.Phase
}

// Fifty nodes change to another root while one sleeps: at no moment does a node
// that is awake doubt another one, and the sleeper gets in again.
func TestFiftyNodesChangeTheRoot(t *testing.T) {
	const nodes = 50
	c := newTown(t, nodes)
	for range 6 {
		c.pass(time.Second)
	}
	sleeper := c.members[nodes-1]
	sleeper.durable = true
	sleeper.start(t)
	c.pass(time.Second)
	c.believe()
	before := string(c.w.Bundle)

	c.w.Now = c.w.Now.Add(time.Hour)
	sleeper.asleep = true
	node := c.w.Nodes[sleeper.live.ID.Name]
	node.Ready = false
	c.w.Nodes[sleeper.live.ID.Name] = node
	c.w.Trust.Request = c.w.Now.UTC().Format(time.RFC3339)

	seen := map[rootchange.Phase]bool{}
	start := c.w.Now
	for c.w.Now.Sub(start) < 25*time.Second {
		c.pass(time.Second)
		if phase := c.phase(); !seen[phase] {
			seen[phase] = true
			c.believe()
		}
		if c.w.Now.Sub(start) == 10*time.Second { // in the middle of the window
			c.believe()
		}
	}
	if !seen[rootchange.PhaseAnnounced] || c.phase() != rootchange.PhaseSwitched {
		t.Fatalf("phase %s after 25 s, seen %v", c.phase(), seen)
	}
	if n := testutil.ToFloat64(c.worker.Metrics.waiting); n != 1 {
		t.Errorf("waits for %v nodes, want the sleeper alone", n)
	}
	status, err := c.worker.authority.Status()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range c.members[:nodes-1] {
		wantRoot(t, m, status.Roots[1].KeyID)
	}
	// Its certificate ends; the others renew theirs in the meantime.
	for range 8 * 2 {
		c.pass(12 * time.Hour)
		c.pass(time.Second)
		c.pass(time.Second)
		c.pass(time.Second)
	}
	c.believe()
	if c.phase() != rootchange.PhaseSteady || string(c.w.Bundle) == before {
		t.Fatalf("phase %s", c.phase())
	}
	if roots, err := keymgr.ParseBundle(c.w.Bundle); err != nil || len(roots) != 1 {
		t.Errorf("%d roots, %v", len(roots), err)
	}
	// It wakes up with an identity and marks of another age.
	sleeper.start(t)
	sleeper.asleep, node.Ready = false, true
	c.w.Nodes[sleeper.live.ID.Name] = node
	for range 6 {
		c.pass(time.Second)
	}
	wantRoot(t, sleeper, status.Roots[1].KeyID)
	c.believe()
	if c.phase() != rootchange.PhaseSteady {
		t.Errorf("phase %s with everybody awake", c.phase())
	}
}

// wantRoot wants a node's certificate to lead to a root.
func wantRoot(t *testing.T, m *member, keyID string) {
	t.Helper()
	signed, ok := m.identity.Last()
	if !ok {
		t.Fatalf("%s has signed nothing", m.live.ID.Name)
	}
	top, err := x509.ParseCertificate(signed.Chain[len(signed.Chain)-1])
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(top.AuthorityKeyId); got != keyID {
		t.Errorf("%s has a certificate below %s, want %s", m.live.ID.Name, got, keyID)
	}
}
