// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca

import (
	"errors"
	"fmt"
)

// Errors of the authority.
var (
	// ErrConflict: a Store was changed since it was loaded; load again and retry.
	ErrConflict = errors.New("store changed meanwhile")
	// ErrRootOffline: only the root could do this, and its key is not here.
	ErrRootOffline = errors.New("root key is offline")
	// ErrRoot: the root certificate or key that the operator provided cannot serve.
	ErrRoot = errors.New("unusable root")
	// ErrRotation: the stored state of a change of roots cannot be understood.
	ErrRotation = errors.New("unusable rotation of roots")
	// ErrExport: a file or store with an exported root does not hold what it should.
	ErrExport = errors.New("unusable export of the root")
	// ErrIntermediate: the issuing intermediate cannot serve.
	ErrIntermediate = errors.New("unusable intermediate")
	// ErrLifetime: a lifetime is out of bounds.
	ErrLifetime = errors.New("invalid lifetime")
	// ErrOrder: an Order that did not come from Approve.
	ErrOrder = errors.New("order was not approved")
	// ErrDenied: a certificate request was refused; errors.As finds the *Denial.
	ErrDenied = errors.New("certificate request denied")
)

// Reason is a stable code for a refused request, for metrics and conditions.
type Reason string

// The reasons, in the order of the checks.
const (
	ReasonSignerName     Reason = "SignerName"
	ReasonUsername       Reason = "Username"
	ReasonExtra          Reason = "Extra"
	ReasonNode           Reason = "Node"
	ReasonPod            Reason = "Pod"
	ReasonNodeRevoked    Reason = "NodeRevoked"
	ReasonRequest        Reason = "Request"
	ReasonKey            Reason = "Key"
	ReasonKeyRevoked     Reason = "KeyRevoked"
	ReasonName           Reason = "Name"
	ReasonSubject        Reason = "Subject"
	ReasonUsages         Reason = "Usages"
	ReasonExpiration     Reason = "Expiration"
	ReasonRateLimit      Reason = "RateLimit"
	ReasonKeyOfOtherNode Reason = "KeyOfOtherNode"
)

// Denial is why a request was refused. It is an ErrDenied.
type Denial struct {
	Reason Reason
	// Message names the field, its value and what to do about it.
	Message string
}

// Error returns reason and message.
func (d *Denial) Error() string {
	return fmt.Sprintf("%v: %s: %s", ErrDenied, d.Reason, d.Message)
}

// Is makes every Denial an ErrDenied.
func (d *Denial) Is(target error) bool { return target == ErrDenied }

func deny(reason Reason, format string, args ...any) error {
	return &Denial{Reason: reason, Message: fmt.Sprintf(format, args...)}
}
