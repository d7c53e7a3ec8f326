// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package observe

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/sealane/sealane/policy"
)

// The verdicts of a Flow.
const (
	Allowed   = "allowed"
	Denied    = "denied"
	WouldDeny = "would_deny" // passed, and would not if policies in dry run were in force
)

// Flow is what the data path reports of a flow: when it begins, and when
// policies have changed and it is denied.
type Flow struct {
	Time        time.Time
	Source      netip.AddrPort // who began it
	Destination netip.AddrPort // the backend, where a service was asked for
	Frontend    netip.AddrPort // the service that was asked for; invalid: none
	Protocol    uint8          // as in the IP header
	Verdict     string         // Allowed, Denied or WouldDeny
	Reason      string         // the label of the drop reason; of WouldDeny: what it would have been
	Lost        uint64         // flows before this one that the data path could not report
}

// Record is a line of the stream: a flow with all that the node knows of it. The
// first line is none, and says that flows are shown from now on; and so is one
// that tells how many flows the reader has missed.
type Record struct {
	Time time.Time `json:"time"`
	Node string    `json:"node"` // that decided
	// Begun is set in the first line.
	Begun bool `json:"begun,omitempty"`
	// Lost is how many flows before this line the reader, or the daemon, was too
	// slow for. Of those that the daemon missed nobody knows whether the filter wants them.
	Lost        uint64   `json:"lost,omitempty"`
	Verdict     string   `json:"verdict,omitempty"`
	Reason      string   `json:"reason,omitempty"` // label of the drop reason
	Protocol    string   `json:"protocol,omitempty"`
	Source      End      `json:"source,omitzero"`
	Destination End      `json:"destination,omitzero"`
	Service     *Service `json:"service,omitempty"` // nil: none was asked for
	// Egress and Ingress are what the policies of the API say now, each where the
	// pod is on this node. They differ from the verdict when policies or labels
	// have just changed.
	Egress  *Side `json:"egress,omitempty"`
	Ingress *Side `json:"ingress,omitempty"`
	Lane    *Lane `json:"lane,omitempty"` // nil: the flow does not go to or come from another node
}

// End is one end of a flow.
type End struct {
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port,omitempty"` // of protocols that have ports
	Pod     string     `json:"pod,omitempty"`  // namespace/name
	Node    string     `json:"node,omitempty"` // that the pod runs on, or that has the address
}

// String names the end as people do.
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

// Service is what a pod asked for.
type Service struct {
	Address netip.AddrPort `json:"address"`
	Name    string         `json:"name,omitempty"` // namespace/name
}

// Side is what policies say of one direction.
type Side struct {
	Allowed bool `json:"allowed"`
	// DryRun says that the rest is as if policies in dry run were in force.
	DryRun    bool     `json:"dryRun,omitempty"`
	Always    string   `json:"always,omitempty"` // why it is allowed whatever policies say
	Isolating []string `json:"isolating,omitempty"`
	Allowing  []string `json:"allowing,omitempty"`
}

// String says it in a few words.
func (s Side) String() string {
	text := ""
	if s.DryRun {
		text = "in dry run "
	}
	if s.Always != "" {
		return text + s.Always
	}
	return text + policy.Judgement{Allowed: s.Allowed, Isolating: s.Isolating, Allowing: s.Allowing}.String()
}

// Lane is the way to another node.
type Lane struct {
	Peer      string `json:"peer"` // the other node
	Kind      string `json:"kind"` // wireguard or vxlan
	Encrypted bool   `json:"encrypted"`
	// OwnGeneration and PeerGeneration are of the WireGuard keys that carry what is
	// sent; zero: there is no lane now, and nothing is sent.
	OwnGeneration  uint64 `json:"ownGeneration,omitempty"`
	PeerGeneration uint64 `json:"peerGeneration,omitempty"`
}

// String says it in a few words.
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

// ProtocolName is the name of a protocol of the IP header, or its number.
func ProtocolName(number uint8) string {
	switch number {
	case policy.TCP:
		return "TCP"
	case policy.UDP:
		return "UDP"
	case policy.SCTP:
		return "SCTP"
	case icmp:
		return "ICMP"
	case icmpv6:
		return "ICMPv6"
	}
	return strconv.Itoa(int(number))
}

// ParseProtocol is the number of a protocol of that name, whatever its case.
func ParseProtocol(name string) (number uint8, ok bool) {
	for _, n := range []uint8{policy.TCP, policy.UDP, policy.SCTP, icmp, icmpv6} {
		if strings.EqualFold(name, ProtocolName(n)) {
			return n, true
		}
	}
	n, err := strconv.ParseUint(name, 10, 8)
	return uint8(n), err == nil
}

func hasPorts(protocol uint8) bool {
	return protocol == policy.TCP || protocol == policy.UDP || protocol == policy.SCTP
}
