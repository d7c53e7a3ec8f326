// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rootchange

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/sealane/sealane/keymgr/renewal"
)

// State says what a trusted root is for.
type State string

// The states of a root.
const (
	Issuing State = "issuing" // the intermediate is below it
	Next    State = "next"    // will issue, once every node trusts it
	Old     State = "old"     // trusted until nothing leads to it any more
	Trusted State = "trusted" // provided by the operator beside the issuing one
)

// Status is a trusted root.
type Status struct {
	State     State     `json:"state"`
	Serial    string    `json:"serial"`
	Subject   string    `json:"subject"`
	KeyID     string    `json:"keyID"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
}

// Account is what the controller publishes about its authority, for people to read.
// Nothing in it is secret, and no decision depends on it.
type Account struct {
	// Mode is the controller's --ca-mode.
	Mode       string          `json:"mode"`
	Phase      Phase           `json:"phase"`
	Since      time.Time       `json:"since,omitzero"`
	Roots      []Status        `json:"roots"`
	RootOnline bool            `json:"rootOnline"`
	RootWanted bool            `json:"rootWanted"`
	Issuer     Intermediate    `json:"intermediate"`
	Window     *renewal.Window `json:"renewalWindow,omitempty"`
}

// Intermediate is the intermediate in an Account.
type Intermediate struct {
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	RenewAt   time.Time `json:"renewAt"`
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
		if r.State == Old {
			s.OldRoot = r.KeyID
		}
	}
	return s
}
