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
	ReasonNodePort        Reason = 17
	ReasonLoopback        Reason = 18
)

// Reasons lists every reason in the order of its number.
func Reasons() []Reason {
	all := make([]Reason, ReasonLoopback)
	for i := range all {
		all[i] = Reason(i + 1)
	}
	return all
}

// String returns the label of the reason in metrics, logs and the CLI.
func (r Reason) String() string {
	labels := [...]string{
		ReasonMalformed: "malformed", ReasonSpoofedSource: "spoofed_source", ReasonLinkLocal: "link_local", ReasonMulticast: "multicast",
		ReasonProtocol: "protocol", ReasonNoLane: "no_lane", ReasonNoEndpoint: "no_endpoint", ReasonLaneSource: "lane_source",
		ReasonLaneDestination: "lane_destination", ReasonLeakEgress: "leak_egress", ReasonLeakIngress: "leak_ingress", ReasonHelper: "helper",
		ReasonPolicyEgress: "policy_egress", ReasonPolicyIngress: "policy_ingress", ReasonPolicyUnknown: "policy_unknown", ReasonPolicyPeer: "policy_peer",
		ReasonNodePort: "node_port", ReasonLoopback: "loopback",
	}
	if int(r) >= len(labels) || labels[r] == "" {
		return "unknown"
	}
	return labels[r]
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

// String returns the label of the path in metrics.
func (p Path) String() string {
	if labels := [...]string{"local", "lane_out", "lane_in", "stack_out", "stack_in"}; int(p) < len(labels) {
		return labels[p]
	}
	return "unknown"
}
