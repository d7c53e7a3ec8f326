// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// LiveNode is what the API server's Node object says now.
type LiveNode struct {
	ID NodeID `json:"id"`
	// PodCIDRs are spec.podCIDRs of all families.
	PodCIDRs []netip.Prefix `json:"podCIDRs"`
	// Addresses are the InternalIPs.
	Addresses []netip.Addr `json:"addresses"`
	// Created is when the Node was created, in the API server's time; zero if unknown.
	Created time.Time `json:"created,omitzero"`
	// ControlPlane is set if the Node has the label of the control plane.
	ControlPlane bool `json:"controlPlane,omitzero"`
}

// Older orders nodes by the age of their Node objects. Names would do for an order too, but
// who chooses a name could choose to be first.
func (n LiveNode) Older(o LiveNode) int {
	return cmp.Or(n.Created.Compare(o.Created), cmp.Compare(n.ID.UID, o.ID.UID))
}

// CertificateInfo names a certificate by what no re-encoding can change: issuer
// and serial number, and the hash of the public key.
type CertificateInfo struct {
	// Serial is the serial number in hexadecimal, without leading zeros.
	Serial string
	// Issuer is the issuer's distinguished name (RFC 2253).
	Issuer    string
	NotBefore time.Time
	NotAfter  time.Time
	// SPKI is the SHA-256 hash of the SubjectPublicKeyInfo (RFC 5280, 4.1.2.7).
	SPKI [32]byte
}

// Peer is a verified statement of another node.
type Peer struct {
	ID NodeID
	// Seq is the statement's sequence number.
	Seq uint64
	// Keys holds the keys that are valid now, oldest generation first.
	Keys []PeerKey
	// Withdrawn holds keys that the previous statement listed and this one does not. Do
	// not begin to use them, but their owner may still be sending with them.
	Withdrawn []PeerKey
	// RevokedGens are generations that the node disowned: drop them at once.
	RevokedGens []uint64
	// PodCIDRs are the node's pod ranges; empty means none.
	PodCIDRs []netip.Prefix
	// Endpoints are the addresses to send to; at least one.
	Endpoints []netip.Addr
	// PSK is the node's preshared-key mode, never empty.
	PSK PSKMode
	// PSKPort is the TCP port of the preshared-key exchange; 0 means that there is none.
	PSKPort uint16
	// NotAfter is when the statement or the certificate ends, whichever is first.
	NotAfter time.Time
	// Until is NotAfter plus clock skew and grace: from then on Verify refuses.
	Until time.Time
	// Grace is set after NotAfter: keep what runs, accept nothing new, warn the operator.
	Grace bool
	// Certificate identifies the certificate that vouches for the statement.
	Certificate CertificateInfo
	// Warnings are findings that an operator should see and that do not make the
	// statement invalid.
	Warnings []Warning
}

// AllKeys returns the keys of p that a tunnel may use: the listed ones, then the
// withdrawn ones.
func (p Peer) AllKeys() []PeerKey { return slices.Concat(p.Keys, p.Withdrawn) }

// Warning is a finding that is no reason to refuse a statement.
type Warning struct {
	// Code is one of the Warning… constants.
	Code string
	// Text says what was found, with the values.
	Text string
}

// Codes of warnings; stable like the labels of RejectReason.
const (
	// WarnHistory: the statement does not follow the last one accepted. This node missed
	// one, or somebody else has signed one with the node's key.
	WarnHistory = "history"
	// WarnEndpoint: an endpoint of an accepted statement left the live Node.
	WarnEndpoint = "endpoint"
	// WarnContinuity: the certificate has a new key for which the old one does not vouch.
	// The node has lost its disk, or somebody in league with the authority impersonates it.
	WarnContinuity = "continuity"
	// WarnAddress: an address that the node claims is not taken for its own.
	WarnAddress = "address"
)

// Record is what a Verifier remembers of a node across restarts.
type Record struct {
	ID NodeID `json:"id"`
	// Seq and Hash are the high-water mark: the last accepted statement.
	Seq  uint64 `json:"seq"`
	Hash Hash   `json:"hash"`
	// LowGeneration and HighGeneration bound the keys of that statement.
	LowGeneration  uint64 `json:"lowGeneration"`
	HighGeneration uint64 `json:"highGeneration"`
	// SPKI is the hash of the certificate's key of that statement; zero in records
	// of older versions whose statement cannot be read.
	SPKI Hash `json:"spki,omitzero"`
	// Expires is when no statement up to Seq can be valid any more. After that, the mark of
	// a deleted node may be forgotten.
	Expires time.Time `json:"expires"`
	// Gone is set by Forget: the mark stays, but the statement is no longer used.
	Gone bool `json:"gone,omitzero"`
	// Addresses are the addresses that were verified with that statement.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// Withdrawn is the key that the previous statement listed and this one does not; nil
	// means that there is none.
	Withdrawn *WithdrawnKey `json:"withdrawn,omitempty"`
	// Statement is the last accepted statement, and Live is what the API server said then.
	// A node that boots without an API server starts from them.
	Statement Signed   `json:"statement"`
	Live      LiveNode `json:"live"`
}

// WithdrawnKey is a key that its owner has withdrawn without revoking it.
type WithdrawnKey struct {
	Key StatementKey `json:"key"`
	// At is when this node accepted the statement that withdrew it.
	At time.Time `json:"at"`
}

// MarkStore keeps Records. Save must be durable when it returns.
type MarkStore interface {
	Load() ([]Record, error)
	Save(Record) error
	// Delete removes the record of a node UID; an absent one is no error.
	Delete(uid string) error
}
