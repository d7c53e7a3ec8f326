// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package approval

import (
	"errors"
	"fmt"
)

// ErrDenied: a certificate request was refused; errors.As finds the *Denial.
var ErrDenied = errors.New("certificate request denied")

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
	ReasonPodRanges      Reason = "PodRanges"
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
