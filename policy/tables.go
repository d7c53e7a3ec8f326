// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policy

import "net/netip"

// ID names a label set, a class of addresses, a rule set or a set of ports. It
// is made of what it names (the first 8 bytes of a SHA-256 over a canonical
// form), so that a daemon that starts anew finds its tables as it left them,
// and that no number ever means something else.
type ID uint64

const (
	// NotIsolated stands for a rule set in a [Guard]: no policy selects the pod
	// in this direction, everything passes.
	NotIsolated ID = 0
	// NoPorts stands for a set of ports: nothing is allowed.
	NoPorts ID = 0
	// AllPorts stands for a set of ports: every protocol is allowed, also those
	// without ports, such as ICMP.
	AllPorts ID = 1
	// Closed stands for a rule set that allows nothing. It is listed in Tables.Sets
	// like the others.
	Closed ID = 1
	// NoBlock stands for the class of addresses that are in no ipBlock. Nothing is
	// allowed to it, and no rule names it.
	NoBlock ID = 0
)

// Tables is all that the data path of one node needs to know of policies. Only
// this node's pods have guards, and only what their guards lead to is listed.
//
// New traffic from pod A to pod B passes if A's guard allows it to leave and
// B's guard allows it to come in, each where that pod is. A guard allows what
// its rule set allows: by Set.Any for every peer, by Set.Pods for every peer
// that has an identity, by the rule for the peer's identity, or by the rule for
// the class of the peer's address. Each leads to a set of ports; the port is
// always that of the destination. One that allows is enough.
type Tables struct {
	Identities map[netip.Addr]ID   // pods of the whole cluster, by address: their label set
	Blocks     map[netip.Prefix]ID // class of an address: that of the longest prefix here
	Guards     map[netip.Addr]Guard
	Sets       map[ID]Set
	Rules      map[Rule]ID    // the ports allowed
	Ports      map[ID][]Ports // in order of protocol and first port, merged, never empty
}

// Guard is what keeps a pod of this node. An address of a pod of this node
// without guard is one that the data path lets nothing in or out of.
type Guard struct {
	Egress, Ingress ID // rule sets; NotIsolated where no policy selects the pod
	// TrialEgress and TrialIngress are as they would be if policies with the
	// annotation DryRun were in force: what they deny is reported and passes.
	TrialEgress, TrialIngress ID
}

// Set is the part of a rule set that needs no look at labels or addresses.
type Set struct {
	Any  ID // ports allowed to every peer
	Pods ID // ports allowed to every pod that has an identity
}

// Rule is a rule set and a peer in it: an identity or an address class.
type Rule struct{ Set, Peer ID }

// Ports is a range of ports of one protocol, first and last included.
type Ports struct {
	Protocol    uint8 // as in the IP header: 6 TCP, 17 UDP, 132 SCTP
	First, Last uint16
}

// Changes makes one state of [Tables] into the next: entries to add or replace,
// and entries to take away.
//
// Written in this order, they neither stop in between what both states allow,
// nor let through what both forbid: ports, sets and rules to add; identities and
// blocks to add or replace; guards to add or replace; then what is to be taken
// away, guards first, ports last. Where several things changed at once, as many as
// the compiler was told of, what counts in between is a state in which some have
// changed and some have not yet.
type Changes struct {
	Set     Tables
	Removed Keys
}

// Keys are keys of [Tables].
type Keys struct {
	Identities []netip.Addr
	Blocks     []netip.Prefix
	Guards     []netip.Addr
	Sets       []ID
	Rules      []Rule
	Ports      []ID
}
