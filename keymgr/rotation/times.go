// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotation

import "time"

const (
	// MinPeriod is the shortest period of scheduled rotation.
	MinPeriod = time.Minute
	// DefaultPeriod is how old a key gets unless configured otherwise.
	DefaultPeriod = 24 * time.Hour

	// sessionEnd is when WireGuard ends a session (REJECT_AFTER_TIME).
	sessionEnd = 180 * time.Second
	// rekeyOverdue is when another session must have followed one that is kept alive:
	// REKEY_AFTER_TIME of 120 s, and one lost handshake. A session that is older shows
	// that the preshared keys of the two nodes differ.
	rekeyOverdue = 150 * time.Second
	// takeover is when the node that is not the initiator starts handshakes too.
	takeover = 12 * time.Second
	// pairingTakeover is the same for the exchange of preshared keys, which both nodes
	// may start.
	pairingTakeover = time.Second
	// keepaliveTimeout is when WireGuard answers data that nothing else answers
	// (KEEPALIVE_TIMEOUT). Sessions that are kept alive send less often.
	keepaliveTimeout = 10 * time.Second
	// keepaliveSize is the size of a keepalive in bytes: header and tag, no data.
	keepaliveSize = 32
	// silence is how long to send on the active pair without an answer. If nothing else
	// answers, WireGuard does after keepaliveTimeout.
	silence = 15 * time.Second
	// longSilence is how many times Times.Quiet a key must be silent if nothing has
	// arrived with the next key either.
	longSilence = 12
	// suspension is how long a pair that fell silent is not used.
	suspension = time.Minute
	// clockSkew is how far in the future a key of this node may begin.
	clockSkew = time.Minute

	// pairingsPerSecond bounds the exchanges that reach one node after a change that
	// all peers learn at the same moment.
	pairingsPerSecond = 200
	retryLeast        = 200 * time.Millisecond
	retryMost         = 10 * time.Second
	// perPeer is the estimated cost of reading one peer from the kernel. Polling takes
	// at most a tenth of the time.
	perPeer   = 100 * time.Microsecond
	pollLeast = 100 * time.Millisecond
	idle      = 30 * time.Second
)

// Times are the waiting times of a rotation.
type Times struct {
	// Period is how old a key gets, less a random 10–30 %; 0 means that keys are not
	// replaced by schedule.
	Period time.Duration
	// AfterBoot is the time over which the nodes of a cluster that all booted at once
	// replace their keys from before, each at a moment of its own.
	AfterBoot time.Duration
	// Quiet is how long nothing may arrive with an old key before it is withdrawn.
	Quiet time.Duration
	// Limit is how long peers may hold up a rotation.
	Limit time.Duration
	// Propagation is the time from the withdrawal of a key to its removal.
	Propagation time.Duration
	// Pairing is how old a preshared key gets.
	Pairing time.Duration
	// Patience is how long to wait for a preferred preshared key.
	Patience time.Duration
}

// TimesFor returns the waiting times for a period: those of the design for the default
// of a day, shorter ones for shorter periods.
func TimesFor(period time.Duration) Times {
	t := Times{
		Period: period, AfterBoot: DefaultPeriod / 5, Quiet: 30 * time.Second, Limit: time.Hour, Propagation: time.Minute,
		Pairing: time.Hour, Patience: 10 * time.Second,
	}
	if period > 0 {
		t.AfterBoot = period / 5
		t.Quiet = between(2*time.Second, period/48, t.Quiet)
		t.Limit = between(30*time.Second, period/2, t.Limit)
		t.Propagation = between(3*time.Second, period/24, t.Propagation)
	}
	return t
}

func between(least, want, most time.Duration) time.Duration { return max(least, min(want, most)) }
