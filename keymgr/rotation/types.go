// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotation

import "time"

// Pair names two key generations: one of this node and one of a peer. Their parities
// select one of the four devices. The zero value is no pair.
type Pair struct {
	Own, Peer uint64
}

// Key is one generation of a WireGuard key.
type Key struct {
	// Generation is at least 1.
	Generation uint64
	// Since is when the key was created, as its owner has published it. Both nodes
	// compare the same values.
	Since time.Time
	// Withdrawn says that the newest statement of the peer no longer lists the key. It
	// is always false for a key of this node.
	Withdrawn bool
	// Requested and Compromised are those of the Input for which this node created the
	// key. The key answers these requests even if they lie in the future because the
	// clock that wrote them was ahead. Zero means that there was no request.
	Requested, Compromised time.Time
}

// Secrecy says whether packets to a peer need a preshared key.
type Secrecy uint8

// What the modes of two nodes add up to.
const (
	// Classic: no preshared key.
	Classic Secrecy = iota
	// Preferred: a preshared key if the nodes can agree on one, otherwise none.
	Preferred
	// Required: no packets without a preshared key.
	Required
)

// Pairing says how a preshared key was agreed for a Pair.
type Pairing struct {
	// At is when it was agreed, by this node's clock.
	At time.Time
	// Client says that this node asked for the key. It then starts the handshakes too.
	Client bool
}

// Path is what the kernel shows of an installed Pair.
type Path struct {
	Pair
	// Handshake is when the current session began; zero means that there was none.
	Handshake time.Time
	// Received and Sent count bytes since the pair was installed.
	Received, Sent uint64
	// Preshared says that a preshared key is installed.
	Preshared bool
	// Initiates says that this node keeps the session alive.
	Initiates bool
}

// Peer is what is known of one peer.
type Peer struct {
	// UID is the UID of the peer's Node object.
	UID string
	// Keys are the peer's keys that may be used, in any order.
	Keys []Key
	// Secrecy says whether packets to the peer need a preshared key.
	Secrecy Secrecy
	// Paired holds the preshared keys that were agreed.
	Paired map[Pair]Pairing
	// Paths are the pairs that the kernel has, in any order.
	Paths []Path
}

// Own is what is known of this node's keys.
type Own struct {
	// Keys are the keys on disk, oldest first.
	Keys []Key
	// Signed lists the generations in the newest statement on disk.
	Signed []uint64
	// Announced equals Signed as soon as the API server shows that statement. It is
	// empty before.
	Announced []uint64
}

// Input is everything that a step depends on.
type Input struct {
	Now time.Time
	Own Own
	// Ready is the newest generation whose devices exist; 0 means none.
	Ready uint64
	// Boot is when the machine started. Keys from before are replaced within
	// Times.AfterBoot: if the clock was set back, peers take this node's handshakes with
	// an old key for replays.
	Boot time.Time
	// Requested is when an operator last asked for a new key; zero means never. It
	// replaces keys created before, each once: a key that was created for this very
	// request is not replaced.
	Requested time.Time
	// Compromised is like Requested, but the replacement waits for nobody.
	Compromised time.Time
	// Peers are all peers with a verified key.
	Peers []Peer
}

// WantedPair is a Pair that should be installed.
type WantedPair struct {
	Pair
	// Preshared says to install the pair with its preshared key, and not at all without.
	Preshared bool
	// Initiate says that this node, and not the peer, starts the handshakes. Exactly one
	// of the two must: initiations that cross destroy each other and cost 5 s.
	Initiate bool
}

// PeerDecision is what should be installed for one peer.
type PeerDecision struct {
	// Install lists the pairs that should be installed, most preferred first.
	Install []WantedPair
	// Active is the pair that carries what is sent to the peer; zero means that nothing
	// is installed.
	Active Pair
	// Live says that a handshake has proved Active.
	Live bool
	// Initiator says that this node goes first with the newest pair: it asks for the
	// preshared key and starts the handshake.
	Initiator bool
	// Exchange is the pair to exchange a preshared key for now, with this node as the
	// client; nil means none. It is set once per exchange; report the result with
	// Machine.Exchanged.
	Exchange *Pair
	// Fallback says that a newer pair stopped answering and an older one serves.
	Fallback bool
}

// State is where this node's own key stands.
type State string

// The states of a node's own key, in the order of a rotation.
const (
	Steady    State = "steady"
	Keyed     State = "keyed"
	Published State = "published"
	Retiring  State = "retiring"
)

// Reason is why a new key is created; empty means that none is.
type Reason string

// Reasons to create a new key.
const (
	First      Reason = "first"
	Scheduled  Reason = "scheduled"
	OnDemand   Reason = "requested"
	Compromise Reason = "compromised"
	Boot       Reason = "boot"
	ClockBack  Reason = "clock_set_back"
)

// Decision is what should be so now. The caller may carry out its parts in any order
// and any number of times.
type Decision struct {
	// State is where this node's own key stands.
	State State
	// Create asks for the next generation on disk and says why; empty means no.
	Create Reason
	// Publish lists the generations that this node's statement should list.
	Publish []uint64
	// Revoke lists the generations that peers must drop at once.
	Revoke []uint64
	// Remove is the generation to remove from the disk; 0 means none.
	Remove uint64
	// Overdue says that peers held up the rotation until Times.Limit.
	Overdue bool
	// Waiting lists the UIDs of the peers that are alive and have not proved the new
	// key, or still use the old one.
	Waiting []string
	// Peers holds the decision on each peer, by UID.
	Peers map[string]PeerDecision
	// Next is how long this decision stays the same unless the input changes.
	Next time.Duration
}
