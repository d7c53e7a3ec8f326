// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotation

import "time"

// Slot is a combination of key generations, this node's and a peer's. The zero
// value is no slot.
type Slot struct {
	Own, Peer uint64
}

// Key is one generation of a WireGuard key.
type Key struct {
	Generation uint64
	// Since is when it was made, as its owner has published it. Both ends of a pair
	// compare the same values.
	Since time.Time
	// Withdrawn says of a peer's key that its newest statement no longer lists it.
	Withdrawn bool
	// Requested and Compromised are those of the Input by which an own key was made:
	// it answers them, though they may lie in the future by the clock of who asked.
	Requested, Compromised time.Time
}

// Secrecy says whether the lanes of a pair carry a preshared key.
type Secrecy uint8

// What two nodes make of their modes.
const (
	// Classic: no preshared key.
	Classic Secrecy = iota
	// Preferred: a preshared key, but a lane without one rather than none.
	Preferred
	// Required: no lane without a preshared key.
	Required
)

// Pairing is a preshared key that was agreed for a slot.
type Pairing struct {
	At time.Time
	// Client says that this node asked for it; then it starts the handshakes too.
	Client bool
}

// Path is what the kernel shows of a slot that is installed.
type Path struct {
	Slot
	Handshake time.Time // of the session in use; zero if there was none
	Received  uint64    // bytes
	Sent      uint64    // bytes
	Preshared bool
	Initiates bool // this node keeps the session alive
}

// Peer is what is known of one peer.
type Peer struct {
	UID     string
	Keys    []Key // that may be used, in any order
	Secrecy Secrecy
	Paired  map[Slot]Pairing
	Paths   []Path
}

// Own is what is known of this node's keys.
type Own struct {
	Keys []Key // on disk, oldest first
	// Signed are the generations in the newest statement on disk.
	Signed []uint64
	// Announced are the same as Signed once the API server shows that statement, and
	// none before.
	Announced []uint64
}

// Input is everything that a step is decided on.
type Input struct {
	Now time.Time
	Own Own
	// Ready is the newest generation whose devices exist, 0 for none.
	Ready uint64
	// Boot is when the machine started: older keys are replaced within Times.AfterBoot,
	// for a clock that was set back makes peers take their handshakes for replays.
	Boot time.Time
	// Requested and Compromised are when an operator last asked for a new key: keys
	// made before are replaced, each once: a key that was made for that very request is
	// none of them. After Compromised, without waiting for anybody.
	Requested, Compromised time.Time
	Peers                  []Peer
}

// Combination is a slot that should be installed.
type Combination struct {
	Slot
	Preshared bool
	// Initiate says that this node starts the handshakes.
	Initiate bool
}

// Pair is what should be so with one peer.
type Pair struct {
	Install []Combination // preferred first
	// Active carries what is sent to the peer; the zero Slot if nothing is installed.
	Active Slot
	// Live says that Active is proven by a handshake.
	Live bool
	// First says that this node goes first with the newest slot: exchange, handshake.
	First bool
	// Exchange asks for a preshared key for this slot, now, with this node as the
	// client. It is asked once; tell Machine.Exchanged how it went.
	Exchange *Slot
	// Fallback says that a newer slot stopped answering and an older one serves.
	Fallback bool
}

// State is where this node's own key stands.
type State string

// The states of a node's own key.
const (
	Steady    State = "steady"
	Keyed     State = "keyed"
	Published State = "published"
	Retiring  State = "retiring"
)

// States lists every state, in the order of a rotation.
func States() []State { return []State{Steady, Keyed, Published, Retiring} }

// Reason is why a new key is made; empty for none.
type Reason string

// Reasons to make a new key.
const (
	First      Reason = "first"
	Scheduled  Reason = "scheduled"
	OnDemand   Reason = "requested"
	Compromise Reason = "compromised"
	Boot       Reason = "boot"
	ClockBack  Reason = "clock_set_back"
)

// Decision is what should be so now. All of it may be done in any order and any
// number of times.
type Decision struct {
	State State
	// Create asks for the next generation on disk, and says why.
	Create Reason
	// Publish are the generations that this node's statement should list, and Revoke
	// those that peers must drop at once.
	Publish, Revoke []uint64
	// Remove is a generation to take from the disk; 0 for none.
	Remove uint64
	// Overdue says that peers held the rotation up until its limit; those in Waiting
	// were alive and had not proved the new key, or still used the old one.
	Overdue bool
	Waiting []string
	Peers   map[string]Pair // by UID
	// Next is how long nothing will be different, but for news.
	Next time.Duration
}
