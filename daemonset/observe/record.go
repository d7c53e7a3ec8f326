// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package observe

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/sealane/sealane/internal/ipproto"
	"github.com/sealane/sealane/policy/oracle"
)

// The verdicts of a Flow.
const (
	Allowed      = "allowed"
	Denied       = "denied"
	DryRunDenied = "dry_run_denied" // passed; policies in dry run would have denied it
)

// Flow is what the data path reports about a flow when it begins, and when it is
// denied after policies changed.
type Flow struct {
	Time        time.Time
	Source      netip.AddrPort // who began it
	Destination netip.AddrPort // the backend, if the flow was addressed to a service
	Frontend    netip.AddrPort // the service that the flow was addressed to; invalid: none
	Protocol    uint8          // as in the IP header
	Verdict     string         // Allowed, Denied or DryRunDenied
	Reason      string         // the label of the drop reason; of DryRunDenied: what it would have been
	Lost        uint64         // number of flows before this one that the data path could not report
}

// Record is a line of the stream: a flow with all that the node knows about it. Two
// kinds of lines hold no flow: the first one, which says that flows are shown from now
// on, and one that says how many flows the reader has missed.
type Record struct {
	Time time.Time `json:"time"`
	Node string    `json:"node"` // the node that decided
	// Begun is set in the first line.
	Begun bool `json:"begun,omitempty"`
	// Lost is how many flows before this line were lost because the reader or the
	// daemon was too slow; 0: none. It may include flows that the filter excludes.
	Lost        uint64   `json:"lost,omitempty"`
	Verdict     string   `json:"verdict,omitempty"`
	Reason      string   `json:"reason,omitempty"` // label of the drop reason
	Protocol    string   `json:"protocol,omitempty"`
	Source      End      `json:"source,omitzero"`
	Destination End      `json:"destination,omitzero"`
	Service     *Service `json:"service,omitempty"` // nil: the flow is not to a service
	// Egress and Ingress are what the policies of the API decide now; nil unless the
	// pod of that direction is on this node. They differ from the verdict if policies
	// or labels have just changed.
	Egress  *Side `json:"egress,omitempty"`
	Ingress *Side `json:"ingress,omitempty"`
	Lane    *Lane `json:"lane,omitempty"` // nil: no other node is at either end
}

// End is one end of a flow.
type End struct {
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port,omitempty"` // 0: the protocol has no ports
	Pod     string     `json:"pod,omitempty"`  // namespace/name
	Node    string     `json:"node,omitempty"` // the node of the pod, or the one that has the address
}

// String returns the name of the end, or its address.
func (e End) String() string {
	name := e.Address.String()
	switch {
	case e.Pod != "":
		name = e.Pod
	case e.Node != "":
		name = "node " + e.Node
	case e.Port != 0:
		return netip.AddrPortFrom(e.Address, e.Port).String()
	}
	if e.Port == 0 {
		return name
	}
	return name + ":" + strconv.Itoa(int(e.Port))
}

// Service is the service that a flow was addressed to.
type Service struct {
	Address netip.AddrPort `json:"address"`
	Name    string         `json:"name,omitempty"` // namespace/name
}

// Side is what policies decide about one direction.
type Side struct {
	Allowed bool `json:"allowed"`
	// DryRun is set if the other fields are as if policies in dry run were in force.
	DryRun    bool     `json:"dryRun,omitempty"`
	Always    string   `json:"always,omitempty"`    // why no policy can deny it; empty: policies decide
	Isolating []string `json:"isolating,omitempty"` // the policies that isolate the pod
	Allowing  []string `json:"allowing,omitempty"`  // the rules that allow the flow
}

// String returns the decision in a few words.
func (s Side) String() string {
	text := ""
	if s.DryRun {
		text = "in dry run "
	}
	if s.Always != "" {
		return text + s.Always
	}
	return text + oracle.Judgement{Allowed: s.Allowed, Reasons: oracle.Reasons{Isolating: s.Isolating, Allowing: s.Allowing}}.String()
}

// Lane is the lane to another node.
type Lane struct {
	Peer      string `json:"peer"` // the other node
	Kind      string `json:"kind"` // wireguard or vxlan
	Encrypted bool   `json:"encrypted"`
	// OwnGeneration and PeerGeneration are those of the WireGuard keys in use; zero:
	// there is no lane at the moment, and nothing is sent.
	OwnGeneration  uint64 `json:"ownGeneration,omitempty"`
	PeerGeneration uint64 `json:"peerGeneration,omitempty"`
}

// String returns the encapsulation and keys: "wireguard keys 2/5".
func (l Lane) String() string {
	switch {
	case !l.Encrypted:
		return l.Kind + ", NOT ENCRYPTED"
	case l.OwnGeneration == 0:
		return l.Kind + ", no lane"
	}
	return l.Kind + " keys " + strconv.FormatUint(l.OwnGeneration, 10) + "/" + strconv.FormatUint(l.PeerGeneration, 10)
}

// The numbers of ICMP in the IP header.
const (
	icmp   = 1
	icmpv6 = 58
)

// ProtocolName returns the name of a protocol of the IP header, or its number.
func ProtocolName(number uint8) string {
	switch number {
	case ipproto.TCP:
		return "TCP"
	case ipproto.UDP:
		return "UDP"
	case ipproto.SCTP:
		return "SCTP"
	case icmp:
		return "ICMP"
	case icmpv6:
		return "ICMPv6"
	}
	return strconv.Itoa(int(number))
}

// ParseProtocol returns the number of a protocol, by name in any case or by number.
func ParseProtocol(name string) (number uint8, ok bool) {
	for _, n := range []uint8{ipproto.TCP, ipproto.UDP, ipproto.SCTP, icmp, icmpv6} {
		if strings.EqualFold(name, ProtocolName(n)) {
			return n, true
		}
	}
	n, err := strconv.ParseUint(name, 10, 8)
	return uint8(n), err == nil
}

func hasPorts(protocol uint8) bool {
	return protocol == ipproto.TCP || protocol == ipproto.UDP || protocol == ipproto.SCTP
}
