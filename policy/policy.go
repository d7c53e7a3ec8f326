// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policy

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/labels"
)

// Direction is the way of new traffic, seen from the pod that a policy selects.
type Direction int

// The directions.
const (
	Egress Direction = iota
	Ingress
)

// Policy is what a NetworkPolicy says, as far as that does not depend on pods.
type Policy struct {
	Selects  labels.Selector // pods of the policy's namespace
	DryRun   bool            // see [DryRun]
	Isolates [2]bool         // by Direction: only what rules allow passes
	Rules    [2][]PeerRule   // by Direction
}

// PeerRule allows one peer some ports.
type PeerRule struct {
	Peer  Peer
	Ports PortSpec
}

// PeerKind says which fields of a [Peer] count.
type PeerKind int

// The kinds of peers.
const (
	AnyPeer      PeerKind = iota // every address
	EveryPod                     // every pod that has an identity
	SelectedPods                 // pods that selectors match
	Block                        // addresses of an ipBlock
)

// Peer says whom a rule is about. Its Key is its canonical form: peers of
// one key match the same.
type Peer struct {
	Kind PeerKind
	Key  string // empty for AnyPeer and EveryPod

	Namespace string          // of SelectedPods: in this one, or ...
	SpaceKey  string          // ... in those that Spaces matches, of which this is the canonical form
	Spaces    labels.Selector // nil if Namespace is given
	Pods      labels.Selector // of SelectedPods

	CIDR   netip.Prefix   // of Block
	Except []netip.Prefix // of Block: parts of CIDR that do not overlap, sorted
}

func allPods() Peer {
	return Peer{Kind: SelectedPods, Key: "pods of spaces() labels()", Spaces: labels.Everything(), Pods: labels.Everything()}
}

// Outcome is what one tier of policies says of traffic.
type Outcome int

// The outcomes. The zero value passes the question on, to the next tier or to the end of the
// tiers, where everything is accepted.
const (
	Next Outcome = iota
	Accept
	Deny
)

// String returns the outcome in one word.
func (o Outcome) String() string {
	switch o {
	case Next:
		return "next"
	case Accept:
		return "accept"
	case Deny:
		return "deny"
	}
	return "unknown"
}
