// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package approval

import (
	"crypto/ecdsa"
	"net/netip"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/nodenet"
)

// SignerName is the signer of node certificates in Kubernetes CSRs.
const SignerName = "sealane.io/node"

// Keys of a request's spec.extra. The API server fills them from the token of a
// pod, when the token is bound to that pod (KEP-4193, on from Kubernetes 1.30).
const (
	ExtraNodeName = "authentication.kubernetes.io/node-name"
	ExtraNodeUID  = "authentication.kubernetes.io/node-uid"
	ExtraPodName  = "authentication.kubernetes.io/pod-name"
	ExtraPodUID   = "authentication.kubernetes.io/pod-uid"
)

// Request holds what matters of a Kubernetes CertificateSigningRequest. The API server
// filled all fields but CSR, SignerName, Usages and Expiration.
type Request struct {
	SignerName string
	Username   string
	Extra      map[string][]string
	// CSR is spec.request: one PEM block with the PKCS#10 request.
	CSR []byte
	// Usages are spec.usages, in any order.
	Usages []string
	// Expiration is spec.expirationSeconds; 0 means that the signer chooses.
	Expiration time.Duration
}

// Claims is what a request's extra fields say about who made it.
type Claims struct {
	Node keymgr.NodeID
	// PodName and PodUID are of the pod whose token was used.
	PodName, PodUID string
}

// Policy says which requests a cluster's approver accepts.
type Policy struct {
	TrustDomain string
	// SignerName is the signer that requests must name; "" means the constant SignerName.
	SignerName string
	// Namespace, ServiceAccount and DaemonSetUID are the agent's.
	Namespace      string
	ServiceAccount string
	DaemonSetUID   string
	// MaxLifetime is the longest lifetime that a request may ask for, and what it gets if it
	// asks for none; 0 means DefaultLeafLifetime.
	MaxLifetime time.Duration
	// MaxPerHour limits certificates per node UID; 0 means DefaultMaxPerHour.
	MaxPerHour int
	// Rules says which addresses and pod ranges nodes can have.
	Rules nodenet.Rules
}

// Facts is what the API server says at the time of a request.
type Facts struct {
	Now time.Time
	// Node is the live Node object that the request's claims name; nil means there is none.
	Node *keymgr.LiveNode
	// Pod is the live Pod in the policy's namespace that the claims name; nil means there is
	// none.
	Pod *Pod
	// Issued holds the times at which certificates were issued to the node's UID.
	Issued []time.Time
	// KeyOwners maps the hash of every known node key (CertificateInfo.SPKI) to its node.
	KeyOwners map[[32]byte]keymgr.NodeID
	// Claims holds, by address, the live Nodes that list it and are not revoked.
	Claims map[netip.Addr][]Claim
	// Revoked holds the revoked nodes and keys.
	Revoked keymgr.RevocationList
}

// Pod is a live Pod object.
type Pod struct {
	Name, UID      string
	NodeName       string
	ServiceAccount string
	// Deleting is set when the pod has a deletionTimestamp.
	Deleting bool
	// ControllerKind and ControllerUID are of the owner reference with controller: true.
	ControllerKind string
	ControllerUID  string
}

// Order is an approved request: what an Issuer may put into a certificate. Only Approve
// returns a valid one.
type Order struct {
	node        keymgr.NodeID
	trustDomain string
	key         *ecdsa.PublicKey
	podCIDRs    []netip.Prefix
	addresses   []netip.Addr
	refused     []RefusedAddress
	lifetime    time.Duration
}

// Node returns the node to name in the certificate.
func (o Order) Node() keymgr.NodeID { return o.node }

// TrustDomain returns the trust domain of the certificate's URI.
func (o Order) TrustDomain() string { return o.trustDomain }

// PublicKey returns the key to certify, or nil if o is not valid.
func (o Order) PublicKey() *ecdsa.PublicKey { return o.key }

// PodCIDRs returns the pod ranges of the Node object, which the node may claim.
func (o Order) PodCIDRs() []netip.Prefix { return o.podCIDRs }

// Addresses returns those addresses of the Node object that the node may claim.
func (o Order) Addresses() []netip.Addr { return o.addresses }

// RefusedAddresses returns the others, with the reasons, for operators.
func (o Order) RefusedAddresses() []RefusedAddress { return o.refused }

// Lifetime returns how long the certificate may be valid at most.
func (o Order) Lifetime() time.Duration { return o.lifetime }
