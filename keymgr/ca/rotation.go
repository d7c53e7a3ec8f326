// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca

import (
	"cmp"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/sealane/sealane/keymgr"
)

// Phase is how far a change of roots has got. Each phase is stored before it has an effect.
type Phase string

// The phases, in their order.
const (
	// PhaseSteady: one root is trusted and issues.
	PhaseSteady Phase = "steady"
	// PhaseAnnounced: two roots are trusted, the old one issues. It ends when
	// every node that is ready has both.
	PhaseAnnounced Phase = "announced"
	// PhaseSwitched: two roots are trusted, the new one issues, and nodes renew
	// in the window. It ends when no certificate in use leads to the old one.
	PhaseSwitched Phase = "switched"
	// PhaseDropped: the new root alone is trusted. It ends when every node that
	// is ready has forgotten the old one.
	PhaseDropped Phase = "dropped"
)

// rootShare is the share of its life after which the authority replaces a root that it
// created.
const rootShare = 0.8

// rotation is what is stored of a change of roots.
type rotation struct {
	Phase Phase     `json:"phase"`
	Since time.Time `json:"since"`
	// Request is the last one that was honoured.
	Request time.Time `json:"request,omitzero"`
	// From and To are the window of renewals.
	From time.Time `json:"from,omitzero"`
	To   time.Time `json:"to,omitzero"`
}

func parseRotation(data []byte) (rotation, error) {
	if len(data) == 0 {
		return rotation{Phase: PhaseSteady}, nil
	}
	var r rotation
	if err := json.Unmarshal(data, &r); err != nil {
		return rotation{}, fmt.Errorf("%w: %s: %w", ErrRotation, FileRotation, err)
	}
	switch r.Phase {
	case PhaseSteady, PhaseAnnounced, PhaseSwitched, PhaseDropped:
		return r, nil
	}
	return rotation{}, fmt.Errorf("%w: %s: phase %q", ErrRotation, FileRotation, r.Phase)
}

// Fleet is what a change of roots depends on.
type Fleet struct {
	// Request is when an operator last asked for a new root; zero means never.
	Request time.Time
	// Nodes are the nodes that have published a NodeKey. A node without one does not trust
	// any root yet and starts with the newest bundle.
	Nodes []NodeReport
}

// NodeReport is what is known of one node.
type NodeReport struct {
	Name string
	// Ready is the condition of the Node object. A change of roots does not wait for a node
	// that is not ready: its ServiceAccount gets it a new certificate whatever it missed.
	Ready bool
	// BundleHash is keymgr.HashBundle of the bundle that the node verifies with; "" means
	// that the node has not reported one.
	BundleHash string
	// Chain is the certificate chain in its NodeKey (DER, leaf first).
	Chain [][]byte
}

// Holdup is a node that the next phase waits for.
type Holdup struct {
	Node   string `json:"node"`
	Reason string `json:"reason"`
}

// Stage is a phase with what decides when it may end.
type Stage struct {
	Phase Phase
	// Bundle is the hash of the bundle in force.
	Bundle string
	// OldRoot is the key identifier of the root to drop; "" means that there is none.
	OldRoot string
}

// Waits returns the nodes that the end of the phase waits for, sorted by name.
func (s Stage) Waits(nodes []NodeReport, now time.Time) []Holdup {
	if s.Phase == PhaseSteady {
		return nil
	}
	var all []Holdup
	for _, n := range nodes {
		if why := s.wait(n, now); why != "" {
			all = append(all, Holdup{Node: n.Name, Reason: why})
		}
	}
	slices.SortFunc(all, func(a, b Holdup) int { return cmp.Compare(a.Node, b.Node) })
	return all
}

func (s Stage) wait(n NodeReport, now time.Time) string {
	if n.Ready && n.BundleHash != s.Bundle {
		if n.BundleHash == "" {
			return "has not reported a trust bundle"
		}
		return "has another trust bundle"
	}
	if s.Phase != PhaseSwitched {
		return ""
	}
	end, old := leadsTo(n.Chain, s.OldRoot)
	switch {
	case old && n.Ready:
		return "still has a certificate below the old root"
	case old && !now.After(end):
		return "is not ready, and has a certificate below the old root until " + end.UTC().Format(time.RFC3339)
	}
	return ""
}

// leadsTo reports whether a chain leads to the root with a key identifier, and when its
// leaf ends. A chain that cannot be read leads nowhere.
func leadsTo(chain [][]byte, root string) (end time.Time, ok bool) {
	if len(chain) == 0 {
		return end, false
	}
	top, err := x509.ParseCertificate(chain[len(chain)-1])
	if err != nil || hex.EncodeToString(top.AuthorityKeyId) != root {
		return end, false
	}
	leaf, err := keymgr.ParseCertificateInfo(chain[0])
	if err != nil {
		return end, false
	}
	return leaf.NotAfter, true
}

// stage returns the stage that m is in.
func (m *material) stage() (Stage, error) {
	hash, err := keymgr.HashBundle(m.bundle())
	if err != nil {
		return Stage{}, err
	}
	s := Stage{Phase: m.rotation.Phase, Bundle: hash.String()}
	if m.old != nil {
		s.OldRoot = keyID(m.old)
	}
	return s, nil
}

func keyID(c *x509.Certificate) string { return hex.EncodeToString(c.SubjectKeyId) }

// phaseOver reports whether the phase that m is in may end.
func (a *Authority) phaseOver(m *material, f Fleet) (bool, error) {
	if a.handedIn() {
		return false, nil
	}
	if m.rotation.Phase == PhaseSteady {
		return a.wantsNewRoot(m, f.Request), nil
	}
	s, err := m.stage()
	if err != nil {
		return false, err
	}
	return len(s.Waits(f.Nodes, a.cfg.Clock())) == 0, nil
}

// wantsNewRoot reports whether to begin a change of roots. A request counts once, and only
// if it is younger than the root, because the clock that wrote it may be ahead.
func (a *Authority) wantsNewRoot(m *material, request time.Time) bool {
	root := m.roots[0]
	made := root.NotBefore.Add(backdate)
	if request.After(made) && request.After(m.rotation.Request) {
		return true
	}
	life := root.NotAfter.Sub(made)
	return !a.cfg.Clock().Before(made.Add(time.Duration(rootShare * float64(life))))
}

// advance moves m to the next phase.
func (a *Authority) advance(m *material, f Fleet) error {
	now := a.cfg.Clock().UTC()
	next := m.rotation
	next.Since = now
	switch m.rotation.Phase {
	case PhaseSteady:
		next.Phase = PhaseAnnounced
		if f.Request.After(next.Request) {
			next.Request = f.Request.UTC()
		}
		if m.next == nil {
			if err := a.makeNextRoot(m); err != nil {
				return err
			}
		}
	case PhaseAnnounced:
		next.Phase = PhaseSwitched
		next.From, next.To = now, now.Add(keymgr.Span(len(f.Nodes)))
		if err := a.switchRoots(m); err != nil {
			return err
		}
	case PhaseSwitched:
		next.Phase, next.From, next.To = PhaseDropped, time.Time{}, time.Time{}
		m.old = nil
		delete(m.files, FileOldRootCert)
	case PhaseDropped:
		next.Phase = PhaseSteady
	}
	return m.putRotation(next)
}

func (a *Authority) makeNextRoot(m *material) error {
	cert, key, err := a.newRoot()
	if err != nil {
		return err
	}
	m.next, m.nextKey = cert, key
	return m.put(FileNextRootCert, FileNextRootKey, cert, key)
}

// switchRoots makes the next root the issuing one, with a new intermediate below it, and
// drops the key of the old root, which is of no more use.
func (a *Authority) switchRoots(m *material) error {
	if m.nextKey == nil {
		return fmt.Errorf("%w: the key of the next root is gone; ask for another root", ErrRootOffline)
	}
	m.files[FileOldRootCert] = m.files[FileRootCert]
	m.files[FileRootCert], m.files[FileRootKey] = m.files[FileNextRootCert], m.files[FileNextRootKey]
	delete(m.files, FileNextRootCert)
	delete(m.files, FileNextRootKey)
	m.old, m.roots, m.rootKey = m.roots[0], []*x509.Certificate{m.next}, m.nextKey
	m.next, m.nextKey = nil, nil
	return a.makeIntermediate(m)
}

func (m *material) putRotation(r rotation) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode %s: %w", FileRotation, err)
	}
	m.rotation, m.files[FileRotation] = r, data
	return nil
}
