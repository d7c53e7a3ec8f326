// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policy

import "net/netip"

// Numbers are made of what they stand for (the first 8 bytes of a SHA-256 over a canonical form),
// so that a daemon that starts again finds its tables as it left them, and that no number ever
// means something else.
type (
	// SetID is the number of a rule set.
	SetID uint64
	// PeerID is the number of a peer of rules: the identity of pods, or a group of addresses. Both
	// are of one number space.
	PeerID uint64
	// PortsID is the number of a set of ports.
	PortsID uint64
)

// Numbers with a meaning of their own.
const (
	// NotIsolated stands for a rule set in an [EndpointPolicy]: no policy selects the pod in this
	// direction, everything passes.
	NotIsolated SetID = 0
	// Closed stands for a rule set that allows nothing. It is listed in Tables.Sets like the others.
	Closed SetID = 1

	// NoBlock stands for the group of addresses that are in no ipBlock. Nothing is allowed to it,
	// and no rule names it.
	NoBlock PeerID = 0

	// NoPorts stands for a set of ports: nothing is allowed.
	NoPorts PortsID = 0
	// AllPorts stands for a set of ports: every protocol is allowed, also those without ports, such
	// as ICMP.
	AllPorts PortsID = 1
)

// Tables is all that the data path of one node needs to know of policies. Only this node's pods
// have endpoint policies, and only what these lead to is listed.
//
// New traffic from pod A to pod B passes if A's endpoint policy allows it to leave and B's allows
// it to come in, each on the node of its pod. An endpoint policy allows what its rule set allows:
// by Set.Any for every peer, by Set.Pods for every peer that has an identity, by the rule for the
// peer's identity, or by the rule for the group of the peer's address. Each leads to a set of
// ports; the port is always that of the destination. One that allows is enough.
type Tables struct {
	Identities map[netip.Addr]PeerID   // of the pods of the whole cluster, by address
	Blocks     map[netip.Prefix]PeerID // the group of an address is that of the longest prefix here
	Endpoints  map[netip.Addr]EndpointPolicy
	Sets       map[SetID]Set
	Rules      map[Rule]PortsID    // the ports allowed
	Ports      map[PortsID][]Ports // in order of protocol and first port, merged, never empty
}

// EndpointPolicy is what policies say of one address of a pod of this node. The data path lets
// nothing in or out of an address of such a pod without one.
type EndpointPolicy struct {
	Egress, Ingress SetID // NotIsolated where no policy selects the pod
	// DryRunEgress and DryRunIngress are as they would be if policies with the annotation DryRun
	// were in force: what they deny is reported and passes.
	DryRunEgress, DryRunIngress SetID
}

// Set is the part of a rule set that depends on neither labels nor addresses.
type Set struct {
	Any  PortsID // allowed to every peer
	Pods PortsID // allowed to every pod that has an identity
}

// Rule is a rule set and a peer in it.
type Rule struct {
	Set  SetID
	Peer PeerID
}

// Ports is a range of ports of one protocol, first and last included.
type Ports struct {
	Protocol    uint8 // as in the IP header: 6 TCP, 17 UDP, 132 SCTP
	First, Last uint16
}

// Changes turns one state of [Tables] into the next: entries to add or replace, and entries to
// remove.
//
// Written in the following order, they neither stop on the way what both states allow, nor let
// through what both forbid: ports, sets and rules to add; identities and blocks to add or replace;
// endpoint policies to add or replace; then the removals, endpoint policies first, ports last. If
// several things changed at once, the state on the way is one in which some of them have changed
// and the others have not.
type Changes struct {
	Set     Tables
	Removed Keys
}

// Keys are keys of [Tables].
type Keys struct {
	Identities []netip.Addr
	Blocks     []netip.Prefix
	Endpoints  []netip.Addr
	Sets       []SetID
	Rules      []Rule
	Ports      []PortsID
}
