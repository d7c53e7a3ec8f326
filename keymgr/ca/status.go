// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/sealane/sealane/keymgr"
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
	Stage Stage
	// Since is when it got there; zero if there never was a change of roots.
	Since time.Time
	// Window is when nodes renew after a change of roots; nil means that they need not.
	Window *keymgr.Window
	// Roots are all trusted roots, in the order of the bundle.
	Roots []RootStatus
}

// RootState says what a trusted root is for.
type RootState string

// The states of a root.
const (
	RootIssuing RootState = "issuing" // the intermediate is below it
	RootNext    RootState = "next"    // will issue, once every node trusts it
	RootOld     RootState = "old"     // trusted until nothing leads to it any more
	RootTrusted RootState = "trusted" // provided by the operator beside the issuing one
)

// RootStatus is a trusted root.
type RootStatus struct {
	State     RootState `json:"state"`
	Serial    string    `json:"serial"`
	Subject   string    `json:"subject"`
	KeyID     string    `json:"keyID"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
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
		Stage:   stage, Since: m.rotation.Since, Roots: m.rootStatus(),
	}
	s.RootWanted = s.RootOffline && a.due(m)
	if m.rotation.Phase == PhaseSwitched {
		s.Window = &keymgr.Window{Root: keyID(m.roots[0]), From: m.rotation.From, To: m.rotation.To}
	}
	return s, nil
}

func (m *material) rootStatus() []RootStatus {
	var all []RootStatus
	for _, c := range m.trusted() {
		state := RootTrusted
		switch c {
		case m.roots[0]:
			state = RootIssuing
		case m.old:
			state = RootOld
		case m.next:
			state = RootNext
		}
		all = append(all, RootStatus{
			State: state, Serial: c.SerialNumber.Text(16), Subject: c.Subject.String(), KeyID: keyID(c),
			NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		})
	}
	return all
}

// Account is what the controller publishes about its authority, for people to read.
// Nothing in it is secret, and no decision depends on it.
type Account struct {
	// Mode is the controller's --ca-mode.
	Mode       string              `json:"mode"`
	Phase      Phase               `json:"phase"`
	Since      time.Time           `json:"since,omitzero"`
	Roots      []RootStatus        `json:"roots"`
	RootOnline bool                `json:"rootOnline"`
	RootWanted bool                `json:"rootWanted"`
	Issuer     IntermediateAccount `json:"intermediate"`
	Window     *keymgr.Window      `json:"renewalWindow,omitempty"`
}

// IntermediateAccount is the intermediate in an Account.
type IntermediateAccount struct {
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	RenewAt   time.Time `json:"renewAt"`
}

// Account returns what the controller publishes.
func (s Status) Account(mode string) Account {
	return Account{
		Mode: mode, Phase: s.Stage.Phase, Since: s.Since, Roots: s.Roots, Window: s.Window,
		RootOnline: !s.RootOffline, RootWanted: s.RootWanted,
		Issuer: IntermediateAccount{
			Serial: s.Intermediate.Serial, RenewAt: s.RenewAt.UTC(),
			NotBefore: s.Intermediate.NotBefore, NotAfter: s.Intermediate.NotAfter,
		},
	}
}

// ParseAccount reads a published account.
func ParseAccount(data []byte) (Account, error) {
	var a Account
	if err := json.Unmarshal(data, &a); err != nil {
		return Account{}, fmt.Errorf("read account of the authority: %w", err)
	}
	return a, nil
}

// Encode returns what ParseAccount reads.
func (a Account) Encode() ([]byte, error) {
	data, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("encode account of the authority: %w", err)
	}
	return data, nil
}

// Stage returns the phase of the account with what decides when it may end.
func (a Account) Stage(bundleHash string) Stage {
	s := Stage{Phase: a.Phase, Bundle: bundleHash}
	for _, r := range a.Roots {
		if r.State == RootOld {
			s.OldRoot = r.KeyID
		}
	}
	return s
}
