// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package status

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sealane/sealane/overlay/backend"
)

// Port and Path are where each node's daemon serves its [Node] as JSON over HTTP
// (GET). The report holds no secret.
const (
	Port = 9754
	Path = "/status"
)

// Node is the report of one node's daemon. Keys, serial numbers and the like are text,
// in the form in which people compare them. Readers trust nothing in a report.
type Node struct {
	Name    string `json:"name"`
	UID     string `json:"uid"`     // of the Node object; empty before the daemon has read it
	Version string `json:"version"` // of the daemon
	// Time is when the report was made, by the node's own clock. Readers compute
	// ages from it, so that a difference between clocks does not falsify them.
	Time time.Time `json:"time"`

	Ready bool `json:"ready"`
	// NotReadyReasons say in words what is still missing; empty if Ready.
	NotReadyReasons []string `json:"notReadyReasons,omitempty"`
	// FromDisk is set while the daemon, which started without the API server, works
	// from the last known cluster state on disk.
	FromDisk bool `json:"fromDisk,omitempty"`

	Encapsulation Encapsulation `json:"encapsulation"`
	Certificate   Certificate   `json:"certificate,omitzero"` // zero: none yet, or VXLAN
	// BundleHash is the SHA-256 of the trust bundle in use, lower-case hex; empty: none.
	BundleHash string `json:"bundleHash,omitempty"`
	// BundleRefused says why the node keeps its roots and does not take the published
	// ones, with the remedy; empty: it has taken them.
	BundleRefused string    `json:"bundleRefused,omitempty"`
	Key           Key       `json:"key,omitzero"`       // zero: no key, as with VXLAN
	Statement     Statement `json:"statement,omitzero"` // zero: none published yet
	// Rotation is the state of the replacement of the node's key; zero with VXLAN.
	Rotation Rotation `json:"rotation,omitzero"`
	// PostQuantum says whether lanes need preshared keys: required, preferred or
	// off; empty with VXLAN.
	PostQuantum string    `json:"postQuantum,omitempty"`
	Pairings    []Pairing `json:"pairings,omitempty"` // sorted by role and result

	// Revocations is the revocation list in use; zero: none, as with VXLAN.
	Revocations Revocations `json:"revocations,omitzero"`

	ClusterPodCIDRs []netip.Prefix `json:"clusterPodCIDRs,omitempty"` // of all nodes
	PodCIDRs        []netip.Prefix `json:"podCIDRs,omitempty"`        // of this node
	Pods            int            `json:"pods"`                      // number of pods with an address
	Addresses       []AddressUse   `json:"addresses,omitempty"`
	// QueuedDels is the number of CNI DEL requests that have failed so far.
	QueuedDels int `json:"queuedDels"`

	// Enforcement is the state of policies and services in the data path.
	Enforcement Enforcement `json:"enforcement,omitzero"`

	Peers   []Peer    `json:"peers,omitempty"`   // sorted by name
	Refused []Refusal `json:"refused,omitempty"` // sorted by node and reason
	// ContinuityWarnings count accepted statements whose certificate key the node's
	// previous key does not vouch for.
	ContinuityWarnings []Refusal `json:"continuityWarnings,omitempty"`
	// RefusedAddresses count addresses in accepted statements that are not taken for the
	// node's own: neither lanes nor routes lead to the node by them.
	RefusedAddresses []Refusal `json:"refusedAddresses,omitempty"`

	// Drops count the packets that the data path dropped since its programs were
	// first loaded, in the order of the reasons' numbers.
	Drops []Drop `json:"drops,omitempty"`
	// DryRunDrops count the packets that policies in dry run would have dropped.
	DryRunDrops []Drop `json:"dryRunDrops,omitempty"`
	// Paths count pods' packets by their path, in the order of the paths' numbers.
	Paths []Traffic `json:"paths,omitempty"`
	// LastLeak is the newest packet that the leak guard stopped; nil: none.
	LastLeak *Leak `json:"lastLeak,omitempty"`

	// Uplinks are the devices that the leak guard watches.
	Uplinks []string `json:"uplinks,omitempty"`
	// Clear says in words which traffic stays unencrypted by design.
	Clear []string `json:"clear,omitempty"`
}

// Encapsulation is how a node's packets travel to its peers.
type Encapsulation struct {
	Kind      string       `json:"kind"`      // "wireguard" or "vxlan"
	Backend   backend.Type `json:"backend"`   // empty: no tunnel device yet
	Plaintext bool         `json:"plaintext"` // packets travel unencrypted
	MTU       int          `json:"mtu"`       // of the pods' devices, in bytes; 0: not known yet
	Devices   []Device     `json:"devices,omitempty"`
}

// Device is a tunnel device.
type Device struct {
	Name string `json:"name"`
	Port uint16 `json:"port"` // UDP; 0: nothing serves the device at the moment
}

// Certificate is a certificate that vouches for a node.
type Certificate struct {
	Serial    string    `json:"serial"` // lower-case hex; empty: no certificate
	Issuer    string    `json:"issuer"` // distinguished name
	NotBefore time.Time `json:"notBefore,omitzero"`
	NotAfter  time.Time `json:"notAfter,omitzero"`
	// RenewAt is when the node requests its next certificate; zero for a peer's.
	RenewAt time.Time `json:"renewAt,omitzero"`
}

// Key is a node's own WireGuard key.
type Key struct {
	Generation uint64    `json:"generation"` // 0: no key
	PublicKey  string    `json:"publicKey"`  // base64
	Since      time.Time `json:"since,omitzero"`
}

// Rotation is the state of the replacement of a node's key.
type Rotation struct {
	State string    `json:"state"` // steady, keyed, published or retiring
	Since time.Time `json:"since,omitzero"`
	// Reason is why the newest key was made; empty if an earlier daemon made it.
	Reason string `json:"reason,omitempty"`
	// Waiting names the peers that have not moved to the new key. Overdue is set
	// once the rotation has gone on without them.
	Waiting []string `json:"waiting,omitempty"`
	Overdue bool     `json:"overdue,omitempty"`
}

// Pairing counts the exchanges of preshared keys with one role and result.
type Pairing struct {
	Role   string `json:"role"`   // client or server
	Result string `json:"result"` // agreed, or the reason of the failure
	Count  uint64 `json:"count"`  // since the daemon started
}

// Statement is the newest key statement that a node has published.
type Statement struct {
	Sequence uint64    `json:"sequence"` // 0: no statement
	IssuedAt time.Time `json:"issuedAt,omitzero"`
	NotAfter time.Time `json:"notAfter,omitzero"`
}

// Revocations is the revocation list that a node follows.
type Revocations struct {
	// Number is that of the list that the lanes follow: the node has cut its lanes
	// to all nodes on it. 0: no list.
	Number   uint64    `json:"number"`
	IssuedAt time.Time `json:"issuedAt,omitzero"` // of the newest accepted list
	// Revoked is the reason, in one word, if this node itself is revoked.
	Revoked string `json:"revoked,omitempty"`
}

// AddressUse counts the pod addresses of one family.
type AddressUse struct {
	Family string `json:"family"` // "ipv4" or "ipv6"
	Used   uint64 `json:"used"`
	Size   uint64 `json:"size"` // how many pods can have one; 1<<63-1 stands for that many or more
}

// PeerState says whether packets can go to a peer.
type PeerState string

// The states of a peer.
const (
	// Connected: packets can use the lane. WireGuard needs a handshake first, VXLAN
	// does not.
	Connected PeerState = "connected"
	// HandshakePending: the lane is set up, but the peer has not answered yet.
	HandshakePending PeerState = "handshake_pending"
	// NoLane: no lane is set up yet; this node refuses packets to the peer.
	NoLane PeerState = "no_lane"
	// Refused: this node does not accept the peer's statement; see Peer.Reason.
	Refused PeerState = "refused"
	// Revoked: the peer is revoked and has no lane, whatever it publishes.
	Revoked PeerState = "revoked"
)

// Peer is another node, as the reporting node sees it.
type Peer struct {
	Name       string    `json:"name"`
	UID        string    `json:"uid"`
	State      PeerState `json:"state"`
	Reason     string    `json:"reason,omitempty"`     // in words, unless State is Connected
	Generation uint64    `json:"generation,omitempty"` // of the peer's key in use; 0: none
	PublicKey  string    `json:"publicKey,omitempty"`  // base64
	Endpoint   string    `json:"endpoint,omitempty"`   // address, or address and UDP port
	// LastHandshake is zero before the first handshake, and always with VXLAN.
	LastHandshake time.Time `json:"lastHandshake,omitzero"`
	// Preshared is set if the lane has a preshared key.
	Preshared bool `json:"preshared,omitempty"`
	// GenerationPairs is how many pairs of key generations (own, peer's) are set up:
	// 1, more during a rotation, 0 without a lane and with VXLAN.
	GenerationPairs int         `json:"generationPairs,omitempty"`
	RxBytes         uint64      `json:"rxBytes"` // received, since the lane was set up
	TxBytes         uint64      `json:"txBytes"` // sent, since the lane was set up
	Certificate     Certificate `json:"certificate,omitzero"`
	// StatementNotAfter is when the peer's statement expires; zero: no statement.
	StatementNotAfter time.Time `json:"statementNotAfter,omitzero"`
	// Grace is set if the statement or certificate has expired and the lane lives on
	// only in the grace period.
	Grace bool `json:"grace,omitempty"`
}

// Refusal counts the statements of one node that were refused for one reason.
type Refusal struct {
	Node    string    `json:"node"`    // name of the NodeKey object
	Reason  string    `json:"reason"`  // stable label, as in metrics and Events
	Message string    `json:"message"` // of the newest refusal, in words
	Count   uint64    `json:"count"`   // since the daemon started
	Last    time.Time `json:"last"`    // when the newest was refused
}

// Count adds r to the refusals of its node and reason, and takes over its message and
// time. It changes the list in place and keeps it sorted.
func Count(all []Refusal, r Refusal) []Refusal {
	i, found := slices.BinarySearchFunc(all, r, func(a, b Refusal) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Reason, b.Reason))
	})
	if !found {
		all = slices.Insert(all, i, Refusal{})
	}
	r.Count = all[i].Count + 1
	all[i] = r
	return all
}

// Drop counts the packets that the data path dropped, or would have dropped, for
// one reason.
type Drop struct {
	Reason  string `json:"reason"` // stable label
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Traffic counts the packets of pods that took one path through the node.
type Traffic struct {
	Path    string `json:"path"` // stable label
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Leak is a packet with a pod's address that the leak guard stopped on an uplink,
// where it would have been in the clear.
type Leak struct {
	Source      netip.Addr `json:"source"`
	Destination netip.Addr `json:"destination"`
	Device      string     `json:"device"`
	Reason      string     `json:"reason"` // "leak_egress" or "leak_ingress"
}

// String returns kind and backend: "wireguard (kernel)".
func (e Encapsulation) String() string {
	if e.Backend == "" {
		return e.Kind
	}
	return e.Kind + " (" + string(e.Backend) + ")"
}

// String returns the addresses and the device.
func (l Leak) String() string {
	return fmt.Sprintf("%s > %s on %s", l.Source, l.Destination, l.Device)
}
