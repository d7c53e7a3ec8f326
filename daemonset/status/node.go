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

// Port and Path are where each node's daemon serves its [Node] as JSON, with a
// plain GET over HTTP. It holds no secret.
const (
	Port = 9754
	Path = "/status"
)

// Node is the report of one node's daemon. Keys, serial numbers and the like are
// text here, as people compare them; nothing in a report is trusted.
type Node struct {
	Name    string `json:"name"`
	UID     string `json:"uid"`     // of the Node object
	Version string `json:"version"` // of the daemon
	// Time is when the report was made, by the node's own clock. Ages are
	// reckoned from it, so that no difference between clocks falsifies them.
	Time time.Time `json:"time"`

	Ready bool `json:"ready"`
	// NotReadyReasons say in words what is still missing; empty if Ready.
	NotReadyReasons []string `json:"notReadyReasons,omitempty"`
	// FromDisk: the daemon has started without the API server, and follows what it
	// last saw of the cluster.
	FromDisk bool `json:"fromDisk,omitempty"`

	Lane        Lane        `json:"lane"`
	Certificate Certificate `json:"certificate,omitzero"` // zero: none yet
	// BundleHash is the SHA-256 of the trust bundle in use, lower-case hex.
	BundleHash string    `json:"bundleHash,omitempty"`
	Key        Key       `json:"key,omitzero"`       // zero: no key, as with VXLAN
	Statement  Statement `json:"statement,omitzero"` // zero: none published yet
	// Rotation is where the replacement of the node's key stands; zero with VXLAN.
	Rotation Rotation `json:"rotation,omitzero"`
	// PostQuantum says whether lanes need preshared keys: required, preferred or off.
	PostQuantum string    `json:"postQuantum,omitempty"`
	Pairings    []Pairing `json:"pairings,omitempty"` // by role and result

	// Revocations is the revocation list in use; zero: none, as with VXLAN.
	Revocations Revocations `json:"revocations,omitzero"`

	ClusterPodCIDRs []netip.Prefix `json:"clusterPodCIDRs,omitempty"`
	PodCIDRs        []netip.Prefix `json:"podCIDRs,omitempty"`
	Pods            int            `json:"pods"` // pods that have a lease
	Addresses       []AddressUse   `json:"addresses,omitempty"`
	// QueuedDels are pods' ends that the daemon has not been able to carry out.
	QueuedDels int `json:"queuedDels"`

	// Enforcement is how policies and services fare.
	Enforcement Enforcement `json:"enforcement,omitzero"`

	Peers   []Peer    `json:"peers,omitempty"`   // by name
	Refused []Refusal `json:"refused,omitempty"` // by node and reason
	// Discontinuities are accepted statements whose certificate key the one before
	// does not vouch for: an alarm.
	Discontinuities []Refusal `json:"discontinuities,omitempty"`

	Drops []Drop `json:"drops,omitempty"` // in the order of the reasons' numbers
	// Trials are packets that policies in dry run would have dropped, by reason.
	Trials []Drop    `json:"trials,omitempty"`
	Paths  []Traffic `json:"paths,omitempty"` // in the order of the paths' numbers
	// LastLeak is the newest packet that the leak guard stopped; nil: none.
	LastLeak *Leak `json:"lastLeak,omitempty"`

	// Uplinks are the devices that the leak guard watches.
	Uplinks []string `json:"uplinks,omitempty"`
	// Clear says in words which traffic stays unencrypted by design.
	Clear []string `json:"clear,omitempty"`
}

// Lane is how a node's packets travel to its peers.
type Lane struct {
	Kind      string       `json:"kind"`      // "wireguard" or "vxlan"
	Backend   backend.Type `json:"backend"`   // empty: no tunnel yet
	Plaintext bool         `json:"plaintext"` // packets travel unencrypted
	MTU       int          `json:"mtu"`       // of the pods' devices, bytes
	Devices   []Device     `json:"devices,omitempty"`
}

// Device is a network device that carries lanes.
type Device struct {
	Name string `json:"name"`
	Port uint16 `json:"port"` // UDP
}

// Certificate says which certificate vouches for a node.
type Certificate struct {
	Serial    string    `json:"serial"` // lower-case hex
	Issuer    string    `json:"issuer"` // distinguished name
	NotBefore time.Time `json:"notBefore,omitzero"`
	NotAfter  time.Time `json:"notAfter,omitzero"`
	// RenewAt is when the node asks for its next certificate; zero for a peer's.
	RenewAt time.Time `json:"renewAt,omitzero"`
}

// Key is a node's own WireGuard key.
type Key struct {
	Generation uint64    `json:"generation"`
	PublicKey  string    `json:"publicKey"` // base64
	Since      time.Time `json:"since,omitzero"`
}

// Rotation is where the replacement of a node's key stands.
type Rotation struct {
	State string    `json:"state"` // steady, keyed, published or retiring
	Since time.Time `json:"since,omitzero"`
	// Reason is why the newest key was made, as far as this daemon made it.
	Reason string `json:"reason,omitempty"`
	// Waiting are the peers that have not moved to the new key yet; Overdue is set
	// when the rotation went on without them.
	Waiting []string `json:"waiting,omitempty"`
	Overdue bool     `json:"overdue,omitempty"`
}

// Pairing counts the exchanges of preshared keys that went one way.
type Pairing struct {
	Role   string `json:"role"`   // client or server
	Result string `json:"result"` // agreed, or the reason of the failure
	Count  uint64 `json:"count"`  // since the daemon started
}

// Statement is the newest key statement that a node has published.
type Statement struct {
	Sequence uint64    `json:"sequence"`
	IssuedAt time.Time `json:"issuedAt,omitzero"`
	NotAfter time.Time `json:"notAfter,omitzero"`
}

// Revocations says which revocation list a node follows.
type Revocations struct {
	// Number is of the list that the node's lanes follow: what it revokes is cut.
	Number   uint64    `json:"number"`
	IssuedAt time.Time `json:"issuedAt,omitzero"` // of the newest list accepted
	// Revoked is why this very node is revoked, one word; empty if it is not.
	Revoked string `json:"revoked,omitempty"`
}

// AddressUse says how many pod addresses of a family are taken.
type AddressUse struct {
	Family string `json:"family"` // "ipv4" or "ipv6"
	Used   uint64 `json:"used"`
	Size   uint64 `json:"size"` // that can be given to pods; 1<<63-1 stands for that many or more
}

// PeerState says whether packets can go to a peer.
type PeerState string

// The states of a peer.
const (
	// Connected is a lane that packets can use: after a handshake with
	// WireGuard, at once with VXLAN.
	Connected PeerState = "connected"
	// HandshakePending is a lane that is set up and without an answer so far.
	HandshakePending PeerState = "handshake_pending"
	// NoLane is a node whose statement is accepted, or not there, and for which
	// nothing is set up yet: packets to it are refused.
	NoLane PeerState = "no_lane"
	// Refused is a node whose statement was not accepted; see Peer.Reason.
	Refused PeerState = "refused"
	// Revoked is a node that is revoked: it has no lane, whatever it publishes.
	Revoked PeerState = "revoked"
)

// Peer is another node, as seen from the node of the report.
type Peer struct {
	Name       string    `json:"name"`
	UID        string    `json:"uid"`
	State      PeerState `json:"state"`
	Reason     string    `json:"reason,omitempty"` // in words, unless State is Connected
	Generation uint64    `json:"generation,omitempty"`
	PublicKey  string    `json:"publicKey,omitempty"` // base64
	Endpoint   string    `json:"endpoint,omitempty"`  // address, or address and UDP port
	// LastHandshake is zero if there was none, and with VXLAN.
	LastHandshake time.Time `json:"lastHandshake,omitzero"`
	// Preshared says that the lane has a preshared key; Lanes is how many
	// combinations of keys are set up, one but for rotations.
	Preshared   bool        `json:"preshared,omitempty"`
	Lanes       int         `json:"lanes,omitempty"`
	RxBytes     uint64      `json:"rxBytes"`
	TxBytes     uint64      `json:"txBytes"`
	Certificate Certificate `json:"certificate,omitzero"`
	// StatementNotAfter is when the peer's statement ends.
	StatementNotAfter time.Time `json:"statementNotAfter,omitzero"`
	// Grace is set when statement or certificate has ended and the lane lives on
	// for the time of grace only.
	Grace bool `json:"grace,omitempty"`
}

// Refusal counts the statements of one node that were refused for one reason.
type Refusal struct {
	Node    string    `json:"node"`    // name of the NodeKey object
	Reason  string    `json:"reason"`  // stable label, as in metrics and Events
	Message string    `json:"message"` // of the newest, in words
	Count   uint64    `json:"count"`   // since the daemon started
	Last    time.Time `json:"last"`
}

// Count adds one refusal to those of its node and reason, whose words and time are
// the newest then. The list stays sorted; it is changed in place.
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

// Traffic counts the packets of pods that took one way through the node.
type Traffic struct {
	Path    string `json:"path"` // stable label
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Leak is a packet with a pod's address that was about to pass in the clear.
type Leak struct {
	Source      netip.Addr `json:"source"`
	Destination netip.Addr `json:"destination"`
	Device      string     `json:"device"`
	Reason      string     `json:"reason"` // "leak_egress" or "leak_ingress"
}

// String gives kind and backend, "wireguard (kernel)".
func (l Lane) String() string {
	if l.Backend == "" {
		return l.Kind
	}
	return l.Kind + " (" + string(l.Backend) + ")"
}

// String gives addresses and device.
func (l Leak) String() string {
	return fmt.Sprintf("%s > %s on %s", l.Source, l.Destination, l.Device)
}
