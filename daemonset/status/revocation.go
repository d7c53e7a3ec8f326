// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package status

import "time"

// RevocationState says how far a revocation has got.
type RevocationState string

// The states of a revocation.
const (
	// Ordered is a revocation that the list does not carry yet.
	Ordered RevocationState = "ordered"
	// InForce is one that the list carries, by order.
	InForce RevocationState = "revoked"
	// NodeGone is of a node that was deleted.
	NodeGone RevocationState = "gone"
	// Readmitted is of a node that may have a new key; the old ones stay revoked.
	Readmitted RevocationState = "readmitted"
)

// Revocation is what is known of the revocation of one node.
type Revocation struct {
	Node    string          `json:"node"`
	UID     string          `json:"uid"`
	State   RevocationState `json:"state"`
	Reason  string          `json:"reason"`
	Message string          `json:"message,omitempty"`
	// At is when the list took it up, zero before.
	At time.Time `json:"at,omitzero"`
	// Expires is when the node's old certificates have ended; an order stands
	// beyond it.
	Expires time.Time `json:"expires,omitzero"`
	Keys    []string  `json:"keys,omitempty"`    // SHA-256, lower-case hex
	Serials []string  `json:"serials,omitempty"` // lower-case hex
}

// RevocationReport is the list with the orders that it does not carry yet.
type RevocationReport struct {
	Number      uint64       `json:"number"`
	IssuedAt    time.Time    `json:"issuedAt,omitzero"`
	Revocations []Revocation `json:"revocations"`
}
