// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca

import (
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/renewal"
	"github.com/sealane/sealane/keymgr/rootchange"
)

// Status describes an authority to an operator.
type Status struct {
	Root         keymgr.CertificateInfo
	Intermediate keymgr.CertificateInfo
	// RenewAt is when the intermediate is due for renewal.
	RenewAt time.Time
	// RootOffline says that only the operator can renew the intermediate.
	RootOffline bool
	// RootWanted says that the intermediate is due and waits for an offline root.
	RootWanted bool
	// Stage is how far a change of roots has got.
	Stage rootchange.Stage
	// Since is when it got there; zero if there never was a change of roots.
	Since time.Time
	// Window is when nodes renew after a change of roots; nil means that they need not.
	Window *renewal.Window
	// Roots are all trusted roots, in the order of the bundle.
	Roots []rootchange.Status
	// History is the signed history of the roots; see bundle.Parse.
	History []byte
}

// Status returns which certificates are in use.
func (a *Authority) Status() (Status, error) {
	m := a.current()
	root, err := keymgr.ParseCertificateInfo(m.roots[0].Raw)
	if err != nil {
		return Status{}, err
	}
	intermediate, err := keymgr.ParseCertificateInfo(m.intermediate.Raw)
	if err != nil {
		return Status{}, err
	}
	stage, err := m.stage()
	if err != nil {
		return Status{}, err
	}
	s := Status{
		Root: root, Intermediate: intermediate, RootOffline: m.offline,
		RenewAt: renewAt(m.intermediate.NotBefore, m.intermediate.NotAfter),
		Stage:   stage, Since: m.rotation.Since, Roots: m.rootStatus(), History: m.files[FileBundle],
	}
	s.RootWanted = s.RootOffline && a.due(m)
	if m.rotation.Phase == rootchange.PhaseSwitched {
		s.Window = &renewal.Window{Root: keyID(m.roots[0]), From: m.rotation.From, To: m.rotation.To}
	}
	return s, nil
}

func (m *material) rootStatus() []rootchange.Status {
	var all []rootchange.Status
	for _, c := range m.trusted() {
		state := rootchange.Trusted
		switch c {
		case m.roots[0]:
			state = rootchange.Issuing
		case m.old:
			state = rootchange.Old
		case m.next:
			state = rootchange.Next
		}
		all = append(all, rootchange.Status{
			State: state, Serial: c.SerialNumber.Text(16), Subject: c.Subject.String(), KeyID: keyID(c),
			NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		})
	}
	return all
}

// Account returns what the controller publishes.
func (s Status) Account(mode string) rootchange.Account {
	return rootchange.Account{
		Mode: mode, Phase: s.Stage.Phase, Since: s.Since, Roots: s.Roots, Window: s.Window,
		RootOnline: !s.RootOffline, RootWanted: s.RootWanted,
		Issuer: rootchange.Intermediate{
			Serial: s.Intermediate.Serial, RenewAt: s.RenewAt.UTC(),
			NotBefore: s.Intermediate.NotBefore, NotAfter: s.Intermediate.NotAfter,
		},
	}
}
