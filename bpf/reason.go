// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

// Reason says why the data path dropped a packet. Numbers are those of enum
// drop_reason (src/count.h) and are never reused.
type Reason uint32

// Reasons, in the order of their numbers.
const (
	ReasonMalformed       Reason = 1
	ReasonSpoofedSource   Reason = 2
	ReasonLinkLocal       Reason = 3
	ReasonMulticast       Reason = 4
	ReasonProtocol        Reason = 5
	ReasonNoLane          Reason = 6
	ReasonNoEndpoint      Reason = 7
	ReasonLaneSource      Reason = 8
	ReasonLaneDestination Reason = 9
	ReasonLeakEgress      Reason = 10
	ReasonLeakIngress     Reason = 11
	ReasonHelper          Reason = 12
	ReasonPolicyEgress    Reason = 13
	ReasonPolicyIngress   Reason = 14
	ReasonPolicyUnknown   Reason = 15
	ReasonPolicyPeer      Reason = 16
)

// Reasons lists every reason in the order of its number.
func Reasons() []Reason {
	all := make([]Reason, 0, ReasonPolicyPeer)
	for r := ReasonMalformed; r <= ReasonPolicyPeer; r++ {
		all = append(all, r)
	}
	return all
}

// String is the label of the reason in metrics, logs and the CLI.
func (r Reason) String() string {
	switch r {
	case ReasonMalformed:
		return "malformed"
	case ReasonSpoofedSource:
		return "spoofed_source"
	case ReasonLinkLocal:
		return "link_local"
	case ReasonMulticast:
		return "multicast"
	case ReasonProtocol:
		return "protocol"
	case ReasonNoLane:
		return "no_lane"
	case ReasonNoEndpoint:
		return "no_endpoint"
	case ReasonLaneSource:
		return "lane_source"
	case ReasonLaneDestination:
		return "lane_destination"
	case ReasonLeakEgress:
		return "leak_egress"
	case ReasonLeakIngress:
		return "leak_ingress"
	case ReasonHelper:
		return "helper"
	case ReasonPolicyEgress:
		return "policy_egress"
	case ReasonPolicyIngress:
		return "policy_ingress"
	case ReasonPolicyUnknown:
		return "policy_unknown"
	case ReasonPolicyPeer:
		return "policy_peer"
	}
	return "unknown"
}

// Path is one of the ways that a pod's packet takes. Numbers are those of
// enum path (src/count.h).
type Path uint32

// Paths, in the order of their numbers.
const (
	PathLocal    Path = 0 // pod to pod on this node
	PathLaneOut  Path = 1 // pod into a lane
	PathLaneIn   Path = 2 // lane into a pod
	PathStackOut Path = 3 // pod to the host's stack
	PathStackIn  Path = 4 // the host's stack to a pod
)

// Paths lists every path in the order of its number.
func Paths() []Path {
	return []Path{PathLocal, PathLaneOut, PathLaneIn, PathStackOut, PathStackIn}
}

// String is the label of the path in metrics.
func (p Path) String() string {
	switch p {
	case PathLocal:
		return "local"
	case PathLaneOut:
		return "lane_out"
	case PathLaneIn:
		return "lane_in"
	case PathStackOut:
		return "stack_out"
	case PathStackIn:
		return "stack_in"
	}
	return "unknown"
}
