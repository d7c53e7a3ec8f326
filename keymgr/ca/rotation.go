// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/renewal"
	"github.com/sealane/sealane/keymgr/rootchange"
)

// rootShare is the share of its life after which the authority replaces a root that it
// created.
const rootShare = 0.8

// rotation is what is stored of a change of roots.
type rotation struct {
	Phase rootchange.Phase `json:"phase"`
	Since time.Time        `json:"since"`
	// Request is the last one that was honoured.
	Request time.Time `json:"request,omitzero"`
	// From and To are the window of renewals.
	From time.Time `json:"from,omitzero"`
	To   time.Time `json:"to,omitzero"`
}

func parseRotation(data []byte) (rotation, error) {
	if len(data) == 0 {
		return rotation{Phase: rootchange.PhaseSteady}, nil
	}
	var r rotation
	if err := json.Unmarshal(data, &r); err != nil {
		return rotation{}, fmt.Errorf("%w: %s: %w", ErrRotation, FileRotation, err)
	}
	switch r.Phase {
	case rootchange.PhaseSteady, rootchange.PhaseAnnounced, rootchange.PhaseSwitched, rootchange.PhaseDropped:
		return r, nil
	}
	return rotation{}, fmt.Errorf("%w: %s: phase %q", ErrRotation, FileRotation, r.Phase)
}

// stage returns the stage that m is in.
func (m *material) stage() (rootchange.Stage, error) {
	hash, err := keymgr.HashBundle(m.bundle())
	if err != nil {
		return rootchange.Stage{}, err
	}
	s := rootchange.Stage{Phase: m.rotation.Phase, Bundle: hash.String()}
	if m.old != nil {
		s.OldRoot = keyID(m.old)
	}
	return s, nil
}

func keyID(c *x509.Certificate) string { return hex.EncodeToString(c.SubjectKeyId) }

// phaseOver reports whether the phase that m is in may end.
func (a *Authority) phaseOver(m *material, f rootchange.Fleet) (bool, error) {
	if a.handedIn() {
		return false, nil
	}
	if m.rotation.Phase == rootchange.PhaseSteady {
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
func (a *Authority) advance(m *material, f rootchange.Fleet) error {
	now := a.cfg.Clock().UTC()
	next := m.rotation
	next.Since = now
	switch m.rotation.Phase {
	case rootchange.PhaseSteady:
		next.Phase = rootchange.PhaseAnnounced
		if f.Request.After(next.Request) {
			next.Request = f.Request.UTC()
		}
		if m.next == nil {
			if err := a.makeNextRoot(m); err != nil {
				return err
			}
		}
	case rootchange.PhaseAnnounced:
		next.Phase = rootchange.PhaseSwitched
		next.From, next.To = now, now.Add(renewal.Span(len(f.Nodes)))
		if err := a.switchRoots(m); err != nil {
			return err
		}
	case rootchange.PhaseSwitched:
		next.Phase, next.From, next.To = rootchange.PhaseDropped, time.Time{}, time.Time{}
		m.old = nil
		delete(m.files, FileOldRootCert)
	case rootchange.PhaseDropped:
		next.Phase = rootchange.PhaseSteady
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
