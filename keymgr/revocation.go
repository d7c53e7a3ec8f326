// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// RevocationsType is the type and version of revocation lists. A change that an old reader
// must not ignore gets a new version, as with statements.
const RevocationsType = "revocations/v1"

// Bounds of a revocation list. Encoded, the largest fits into a ConfigMap with
// room for a CRL of the same certificates.
const (
	MaxRevocations = 512 << 10 // bytes of payload
	// MaxRevokedKeys bounds the keys, and as many serial numbers, of one node.
	MaxRevokedKeys = 64

	maxSignedList = 2 * MaxRevocations
	maxReason     = 64
	maxIssuer     = 512
	maxSerial     = 64
)

// RevocationReason is why a node is revoked, in the words of RFC 5280, 5.3.1.
type RevocationReason string

// The reasons that make sense for a node.
const (
	ReasonUnspecified          RevocationReason = "unspecified"
	ReasonKeyCompromise        RevocationReason = "keyCompromise"
	ReasonAffiliationChanged   RevocationReason = "affiliationChanged"
	ReasonSuperseded           RevocationReason = "superseded"
	ReasonCessationOfOperation RevocationReason = "cessationOfOperation"
	ReasonPrivilegeWithdrawn   RevocationReason = "privilegeWithdrawn"
)

// RevocationReasons lists the reasons, in the order of their codes.
func RevocationReasons() []RevocationReason {
	return []RevocationReason{
		ReasonUnspecified, ReasonKeyCompromise, ReasonAffiliationChanged, ReasonSuperseded,
		ReasonCessationOfOperation, ReasonPrivilegeWithdrawn,
	}
}

// Code returns the reason's CRLReason (RFC 5280, 5.3.1), 0 for one that is unknown.
func (r RevocationReason) Code() int {
	return map[RevocationReason]int{
		ReasonKeyCompromise: 1, ReasonAffiliationChanged: 3, ReasonSuperseded: 4,
		ReasonCessationOfOperation: 5, ReasonPrivilegeWithdrawn: 9,
	}[r]
}

// CertificateSerial names a certificate as CertificateInfo does.
type CertificateSerial struct {
	Issuer string `json:"issuer"`
	Serial string `json:"serial"`
}

// RevokedNode is what a list says of one life of a node.
type RevokedNode struct {
	Name   string           `json:"name"`
	UID    string           `json:"uid"`
	Reason RevocationReason `json:"reason"`
	At     time.Time        `json:"at"`
	// Blocked refuses the node with any key, until the node is readmitted. The fields below
	// stay in force until Expires.
	Blocked bool `json:"blocked"`
	// Before refuses every certificate of the node that begins at or before it: those
	// issued before the revocation, whether the controller knows them or not. Zero refuses
	// none.
	Before time.Time `json:"before,omitzero"`
	// Keys and Serials name the certificates of the node that the controller knows.
	Keys    []Hash              `json:"keys,omitempty"`
	Serials []CertificateSerial `json:"serials,omitempty"`
	// Expires is when none of those certificates can be valid any more.
	Expires time.Time `json:"expires"`
}

// ID returns the node that is revoked.
func (n RevokedNode) ID() NodeID { return NodeID{Name: n.Name, UID: n.UID} }

// RevocationList says which identities are revoked. An issuing CA signs its JSON form.
type RevocationList struct {
	Type        string `json:"type"`
	TrustDomain string `json:"trustDomain"`
	// Number grows with every list: max(previous+1, Unix time in milliseconds).
	Number   uint64    `json:"number"`
	IssuedAt time.Time `json:"issuedAt"`
	// Nodes are sorted by name and UID.
	Nodes []RevokedNode `json:"nodes"`
}

// Node returns the entry of a node UID.
func (l RevocationList) Node(uid string) (RevokedNode, bool) {
	i := slices.IndexFunc(l.Nodes, func(n RevokedNode) bool { return n.UID == uid })
	if i < 0 {
		return RevokedNode{}, false
	}
	return l.Nodes[i], true
}

// Encode returns the bytes to sign.
func (l RevocationList) Encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(l); err != nil {
		return nil, fmt.Errorf("encode revocation list: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// ParseRevocations reads a list as strictly as ParseStatement reads a statement.
func ParseRevocations(payload []byte) (RevocationList, error) {
	if len(payload) > MaxRevocations {
		return RevocationList{}, fmt.Errorf("%w: list of %d bytes, at most %d", ErrTooLarge, len(payload), MaxRevocations)
	}
	if err := checkJSON(payload); err != nil {
		return RevocationList{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	var l RevocationList
	if err := json.Unmarshal(payload, &l); err != nil {
		return RevocationList{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if l.Type != RevocationsType {
		return RevocationList{}, fmt.Errorf("%w: %q instead of %q", ErrType, l.Type, RevocationsType)
	}
	if err := l.check(); err != nil {
		return RevocationList{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return l, nil
}

func (l RevocationList) check() error {
	if err := ValidateTrustDomain(l.TrustDomain); err != nil {
		return err
	}
	if l.Number == 0 {
		return errors.New("number is 0")
	}
	seen := map[string]bool{}
	for _, n := range l.Nodes {
		if err := n.check(); err != nil {
			return fmt.Errorf("node %q: %w", n.Name, err)
		}
		if seen[n.UID] {
			return fmt.Errorf("node %s twice", n.ID())
		}
		seen[n.UID] = true
	}
	return nil
}

// check accepts reasons that it does not know. A newer controller may have more of them,
// and refusing the list would leave revoked nodes connected.
func (n RevokedNode) check() error {
	if err := n.ID().Validate(); err != nil {
		return err
	}
	if n.Reason == "" || len(n.Reason) > maxReason || !only(string(n.Reason), isAlnum) {
		return fmt.Errorf("reason %q is no word", n.Reason)
	}
	if len(n.Keys) > MaxRevokedKeys || len(n.Serials) > MaxRevokedKeys {
		return fmt.Errorf("%d keys and %d serial numbers, at most %d", len(n.Keys), len(n.Serials), MaxRevokedKeys)
	}
	for _, s := range n.Serials {
		if s.Serial == "" || len(s.Serial) > maxSerial || !only(s.Serial, isAlnum) || len(s.Issuer) > maxIssuer {
			return fmt.Errorf("serial number %q of issuer %q", s.Serial, s.Issuer)
		}
	}
	return nil
}

// revocationFields are the JSON names in RevocationList and what it holds.
func revocationFields() []string {
	return []string{
		"type", "trustDomain", "number", "issuedAt", "nodes", "name", "uid", "reason", "at",
		"blocked", "before", "keys", "serials", "issuer", "serial", "expires",
	}
}

// EncodeSigned writes a signed list for a ConfigMap.
func EncodeSigned(s Signed) ([]byte, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode signed list: %w", err)
	}
	return data, nil
}

// DecodeSigned is the inverse of EncodeSigned. It verifies nothing.
func DecodeSigned(data []byte) (Signed, error) {
	if len(data) > maxSignedList {
		return Signed{}, fmt.Errorf("decode signed list: %w: %d bytes, at most %d", ErrTooLarge, len(data), maxSignedList)
	}
	var s Signed
	if err := json.Unmarshal(data, &s); err != nil {
		return Signed{}, fmt.Errorf("decode signed list: %w: %w", ErrFormat, err)
	}
	return s, nil
}

// SignRevocations signs a list with the key of an issuing CA.
func SignRevocations(l RevocationList, by Issuer) (Signed, error) {
	payload, err := l.Encode()
	if err != nil {
		return Signed{}, fmt.Errorf("sign revocation list: %w", err)
	}
	// Whatever a reader would not understand must not be signed.
	if _, err := ParseRevocations(payload); err != nil {
		return Signed{}, fmt.Errorf("sign revocation list: %w", err)
	}
	s, err := by.Sign(contextRevocations, payload)
	if err != nil {
		return Signed{}, fmt.Errorf("sign revocation list: %w", err)
	}
	return s, nil
}

// VerifyRevocations reads a list and checks its signer: an issuer of node certificates of
// the trust domain that leads to a root of the bundle at a time. It cannot know whether
// there is a newer list, or whether the list's number is from the future;
// Verifier.SetRevocations does.
func VerifyRevocations(s Signed, bundlePEM []byte, trustDomain string, at time.Time) (RevocationList, error) {
	pool, err := parsePool(bundlePEM)
	if err != nil {
		return RevocationList{}, err
	}
	return verifyRevocations(s, IssuerScene{Roots: pool, TrustDomain: trustDomain, At: at})
}

func verifyRevocations(s Signed, scene IssuerScene) (RevocationList, error) {
	if scene.Roots == nil {
		return RevocationList{}, ErrNoRoots
	}
	if n := len(s.Signature); n > maxIssuerSignature {
		return RevocationList{}, fmt.Errorf("%w: signature of %d bytes, at most %d", ErrTooLarge, n, maxIssuerSignature)
	}
	l, err := ParseRevocations(s.Payload)
	if err != nil {
		return RevocationList{}, err
	}
	if l.TrustDomain != scene.TrustDomain {
		return RevocationList{}, fmt.Errorf("%w: %q instead of %q", ErrTrustDomain, l.TrustDomain, scene.TrustDomain)
	}
	return l, scene.Verify(contextRevocations, s)
}
