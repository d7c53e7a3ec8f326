// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotation

import "time"

const (
	// MinPeriod is the shortest period of scheduled rotation.
	MinPeriod = time.Minute
	// DefaultPeriod is how old a key gets unless configured otherwise.
	DefaultPeriod = 24 * time.Hour

	// sessionEnd is when a session is dead by WireGuard's protocol (REJECT_AFTER_TIME).
	sessionEnd = 180 * time.Second
	// rekeyOverdue is when a session that is kept alive must have been followed by
	// another (REKEY_AFTER_TIME of 120 s, and a handshake that was lost): preshared
	// keys that differ show by it.
	rekeyOverdue = 150 * time.Second
	// stepIn is when the end that should not start handshakes does so.
	stepIn = 12 * time.Second
	// pairingStepIn is the same for the exchange of preshared keys, which may run
	// from both ends.
	pairingStepIn = time.Second
	// keepaliveTimeout is when the protocol answers data that nothing else answers
	// (KEEPALIVE_TIMEOUT); lanes that are kept alive send less often. A keepalive is a
	// message without data: header and tag, in bytes.
	keepaliveTimeout = 10 * time.Second
	keepaliveSize    = 32
	// silence is how long an active slot may be sent to without an answer: the
	// protocol answers after keepaliveTimeout if nobody else does.
	silence = 15 * time.Second
	// longSilence is how many times Times.Quiet a key must be silent when nothing has
	// arrived by the next one either.
	longSilence = 12
	// rest is how long a slot that fell silent is not used again.
	rest = time.Minute
	// clockSkew is how far in the future a key of one's own may begin.
	clockSkew = time.Minute

	// pairingsPerSecond bounds the exchanges that reach one node after news that
	// every peer learns at the same moment.
	pairingsPerSecond = 200
	retryLeast        = 200 * time.Millisecond
	retryMost         = 10 * time.Second
	// perPeer is what one look at a peer in the kernel may cost; polling takes at
	// most a tenth of the time.
	perPeer   = 100 * time.Microsecond
	pollLeast = 100 * time.Millisecond
	idle      = 30 * time.Second
)

// Times are the waiting times of a rotation.
type Times struct {
	// Period is how old a key gets, less up to 30 % by lot; 0: no schedule.
	Period time.Duration
	// AfterBoot is over how long the nodes of a cluster that all started at once
	// replace the keys from before, each at a moment that it draws.
	AfterBoot time.Duration
	// Quiet is how long nothing may arrive by an old key before it is withdrawn.
	Quiet time.Duration
	// Limit is how long peers may hold a rotation up.
	Limit time.Duration
	// Propagation is the time from the withdrawal of a key to its removal.
	Propagation time.Duration
	// Pairing is how old a preshared key gets.
	Pairing time.Duration
	// Patience is how long a preferred preshared key is waited for.
	Patience time.Duration
}

// TimesFor gives waiting times that fit into a period: those of the design for the
// default of a day, shorter ones for short periods.
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
