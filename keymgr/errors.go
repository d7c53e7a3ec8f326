// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import "errors"

// rejection is a reason to refuse a statement: a sentinel with a stable label.
type rejection struct{ label, text string }

// Error returns the reason in words.
func (r *rejection) Error() string { return r.text }

func reject(label, text string) error { return &rejection{label: label, text: text} }

// Reasons why Verify refuses a statement. Each has the label that RejectReason returns.
// Labels never change, because they are metric labels and event reasons.
var (
	// ErrNoRoots: SetRoots was not called with a usable bundle yet.
	ErrNoRoots = reject("no_roots", "no trusted root certificate")
	// ErrSelf: the statement is about this very node.
	ErrSelf = reject("self", "statement is about this node itself")
	// ErrUnknownNode: there is no live Node object to compare with.
	ErrUnknownNode = reject("unknown_node", "no live node")
	// ErrTooLarge: payload, signature or chain is beyond the limits.
	ErrTooLarge = reject("size", "statement too large")
	// ErrFormat: the payload is not one strict JSON object of the right shape.
	ErrFormat = reject("format", "malformed statement")
	// ErrType: the statement is of another type or version.
	ErrType = reject("type", "wrong statement type")
	// ErrTrustDomain: certificate or statement belongs to another cluster.
	ErrTrustDomain = reject("trust_domain", "wrong trust domain")
	// ErrChain: the certificate does not lead to a trusted root.
	ErrChain = reject("chain", "untrusted certificate chain")
	// ErrCertificate: the leaf or its issuer lacks a property of a node certificate.
	ErrCertificate = reject("certificate", "not a node certificate")
	// ErrSignature: the statement was not signed by the certificate's key.
	ErrSignature = reject("signature", "invalid signature")
	// ErrIdentity: statement, certificate and live Node name different nodes.
	ErrIdentity = reject("identity", "wrong node")
	// ErrRevoked: the node, or the key or certificate that it uses, is revoked.
	ErrRevoked = reject("revoked", "revoked")
	// ErrNotYetValid: issued further in the future than clocks may differ.
	ErrNotYetValid = reject("not_yet_valid", "not yet valid")
	// ErrClock: a number that grows with the clock is further in the future than clocks
	// may differ.
	ErrClock = reject("clock", "from the future by this node's clock")
	// ErrExpired: statement or certificate has expired and no grace applies.
	ErrExpired = reject("expired", "expired")
	// ErrLifetime: the times contradict each other or outlive the certificate.
	ErrLifetime = reject("lifetime", "invalid lifetime")
	// ErrReplay: the statement is older than the last one accepted of this node.
	ErrReplay = reject("sequence", "sequence number went back")
	// ErrFork: two different statements with one sequence number; somebody else
	// has the node's key, or its disk was cloned.
	ErrFork = reject("fork", "two statements with the same sequence number")
	// ErrContinuity: the key of the node's certificate changed, and the one before
	// does not vouch for the new one.
	ErrContinuity = reject("continuity", "new certificate key without continuity")
	// ErrGeneration: key generations are not consecutive, went back or changed.
	ErrGeneration = reject("generation", "invalid key generation")
	// ErrKey: the WireGuard public key is no usable X25519 point.
	ErrKey = reject("key", "invalid wireguard key")
	// ErrOwnKey: the WireGuard key is this node's own.
	ErrOwnKey = reject("own_key", "wireguard key is this node's own")
	// ErrDuplicateKey: another node has had the WireGuard key first.
	ErrDuplicateKey = reject("duplicate_key", "wireguard key belongs to another node")
	// ErrPorts: the UDP ports are not usable.
	ErrPorts = reject("ports", "invalid ports")
	// ErrEndpoint: an endpoint is no address of the live Node.
	ErrEndpoint = reject("endpoint", "endpoint is not the node's")
	// ErrPodCIDR: a pod range is in neither the certificate nor the live Node.
	ErrPodCIDR = reject("pod_cidr", "pod CIDR is not the node's")
	// ErrPodCIDROverlap: a pod range is another node's.
	ErrPodCIDROverlap = reject("pod_cidr_overlap", "pod CIDR belongs to another node")
	// ErrPSK: the preshared-key modes of the two nodes exclude each other.
	ErrPSK = reject("psk", "incompatible preshared-key mode")
	// ErrStore: the disk did not take it. A statement is not accepted then; a revocation list
	// is in force all the same.
	ErrStore = reject("store", "sequence mark not stored")
)

// Other errors.
var (
	// ErrKeyMismatch: the certificate is for another private key.
	ErrKeyMismatch = errors.New("certificate does not match the node key")
	// ErrCorrupt: a file on disk cannot be understood.
	ErrCorrupt = errors.New("corrupt file")
	// ErrBundle: a PEM bundle holds something else than CA certificates.
	ErrBundle = errors.New("invalid trust bundle")
)

// RejectReason returns the stable label of the reason why Verify refused a statement. It
// returns "" for nil and "other" for an error that is not of this package.
func RejectReason(err error) string {
	if err == nil {
		return ""
	}
	if r, ok := errors.AsType[*rejection](err); ok {
		return r.label
	}
	return "other"
}
