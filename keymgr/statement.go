// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// StatementType is the type and version of the statements of this package. A change that
// an old reader must not ignore gets a new version. Anything else may be added as a field
// that old readers skip.
const StatementType = "nodekey/v1"

// StatementLifetime is how long a statement is valid; nodes renew it well before.
const StatementLifetime = 72 * time.Hour

// signatureContext separates signatures of statements from everything else that a node's
// key may ever sign.
const signatureContext = "sealane-nodekey-v1\x00"

// Signed is a statement as it travels and is stored: the bytes that were signed,
// never re-encoded, the signature (ASN.1 ECDSA) and the certificate chain in DER,
// leaf first, root left out.
type Signed struct {
	Payload   []byte   `json:"payload"`
	Signature []byte   `json:"signature"`
	Chain     [][]byte `json:"chain"`
	// Continuity holds the last handovers to the key of this certificate, oldest first, for
	// readers that know an earlier key. At most MaxLinks; empty means none.
	Continuity []Link `json:"continuity,omitempty"`
}

// Equal reports whether two signed statements have the same bytes. Different bytes may
// still be the same statement, because a valid ECDSA signature has a second valid form.
func (s Signed) Equal(o Signed) bool {
	return bytes.Equal(s.Payload, o.Payload) && bytes.Equal(s.Signature, o.Signature) && s.sameChain(o) &&
		slices.EqualFunc(s.Continuity, o.Continuity, Link.equal)
}

func (s Signed) sameChain(o Signed) bool { return slices.EqualFunc(s.Chain, o.Chain, bytes.Equal) }

// Hash is a SHA-256 hash, written in hexadecimal.
type Hash [32]byte

// HashPayload returns the hash by which statements refer to each other.
func HashPayload(payload []byte) Hash { return sha256.Sum256(payload) }

// String returns the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText returns the hash in hexadecimal.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (h *Hash) UnmarshalText(text []byte) error {
	raw, err := hex.DecodeString(string(text))
	if err != nil {
		return fmt.Errorf("decode hash: %w", err)
	}
	if len(raw) != len(h) {
		return fmt.Errorf("decode hash: %d bytes instead of %d", len(raw), len(h))
	}
	copy(h[:], raw)
	return nil
}

// PSKMode says whether lanes need a preshared key from the pairwise exchange.
type PSKMode string

// The preshared-key modes. Required and Off exclude each other.
const (
	PSKRequired  PSKMode = "required"
	PSKPreferred PSKMode = "preferred"
	PSKOff       PSKMode = "off"
)

func (m PSKMode) valid() bool { return m == PSKRequired || m == PSKPreferred || m == PSKOff }

// agrees reports whether two nodes with these modes may talk.
func (m PSKMode) agrees(o PSKMode) bool {
	return !(m == PSKRequired && o == PSKOff || m == PSKOff && o == PSKRequired)
}

// Ports are the UDP ports of one key generation, indexed by the parity of the
// peer's generation.
type Ports [2]uint16

// UnmarshalJSON reads exactly two ports; encoding/json alone would take any number.
func (p *Ports) UnmarshalJSON(data []byte) error {
	var list []uint16
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("decode ports: %w", err)
	}
	if len(list) != len(p) {
		return fmt.Errorf("decode ports: %d ports instead of %d", len(list), len(p))
	}
	copy(p[:], list)
	return nil
}

// Statement says which WireGuard keys a node has now. The node signs its JSON form.
type Statement struct {
	// Type is StatementType.
	Type string `json:"type"`
	// TrustDomain is the cluster's: the UID of its kube-system namespace.
	TrustDomain string `json:"trustDomain"`
	NodeName    string `json:"nodeName"`
	NodeUID     string `json:"nodeUID"`
	// Seq grows with every statement: max(previous+1, Unix time in milliseconds).
	Seq uint64 `json:"seq"`
	// PrevSeq and PrevHash name the statement that this one follows; zero for none.
	PrevSeq  uint64    `json:"prevSeq,omitzero"`
	PrevHash Hash      `json:"prevHash,omitzero"`
	IssuedAt time.Time `json:"issuedAt"`
	NotAfter time.Time `json:"notAfter"`
	// Keys holds one key, or two consecutive generations during a rotation.
	Keys []StatementKey `json:"keys"`
	// RevokedGens are generations to drop at once, even if they carry traffic.
	RevokedGens []uint64     `json:"revokedGens,omitempty"`
	Endpoints   []netip.Addr `json:"endpoints"`
	// PSKPort is the TCP port of the preshared-key exchange, 0 for none.
	PSKPort  uint16         `json:"pskPort,omitzero"`
	PSK      PSKMode        `json:"psk"`
	PodCIDRs []netip.Prefix `json:"podCIDRs"`
}

// StatementKey is one WireGuard key generation of a statement.
type StatementKey struct {
	Generation uint64    `json:"gen"`
	Key        PublicKey `json:"wgPub"`
	NotBefore  time.Time `json:"notBefore"`
	NotAfter   time.Time `json:"notAfter"`
	Ports      Ports     `json:"ports"`
}

// Same reports whether two entries list the same key: generation, public key and
// ports. When the key is valid does not count.
func (k StatementKey) Same(o StatementKey) bool {
	return k.Generation == o.Generation && k.Key == o.Key && k.Ports == o.Ports
}

// verified makes the key one that may reach a kernel; only a Verifier may say so.
func (k StatementKey) verified() PeerKey {
	return PeerKey{key: k.Key, gen: k.Generation, ports: k.Ports, since: k.NotBefore.Unix(), valid: true}
}

// ID returns the node that the statement is about.
func (s Statement) ID() NodeID { return NodeID{Name: s.NodeName, UID: s.NodeUID} }

// Encode returns the bytes to sign.
func (s Statement) Encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return nil, fmt.Errorf("encode statement: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// SignPayload signs the payload of a statement (ASN.1 ECDSA) with the node's key.
func SignPayload(key *ecdsa.PrivateKey, payload []byte) ([]byte, error) {
	signature, err := ecdsa.SignASN1(rand.Reader, key, signedBytes(payload))
	if err != nil {
		return nil, fmt.Errorf("sign payload: %w", err)
	}
	return signature, nil
}

// signedBytes returns the hash that is signed, over context and payload.
func signedBytes(payload []byte) []byte {
	h := sha256.New()
	h.Write([]byte(signatureContext))
	h.Write(payload)
	return h.Sum(nil)
}
