// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package overlay

import (
	"fmt"
	"net"

	"github.com/sealane/sealane/keymgr"
)

// Kind is how packets travel between nodes.
type Kind string

// The kinds of lane.
const (
	WireGuard Kind = "wireguard"
	VXLAN     Kind = "vxlan" // not encrypted; needs Config.AllowPlaintext
)

// What identifies everything of Sealane on a node.
const (
	DeviceGroup   = 0x5ea1     // device group of tunnels and of the pods' host devices
	DevicePrefix  = "sealane-" // the names of all tunnels, and of no other device, begin with it
	RouteProtocol = 94         // protocol number of Sealane's routes
	RouteTable    = 5154       // number of the table that routes pods' packets to remote nodes into lanes
	RulePriority  = 5154
	// UnreachableMetric is the metric of the unreachable routes behind the lanes' routes.
	UnreachableMetric = 4278198272
)

// Bits of packet marks. The programs of package bpf set and read the same bits.
const (
	// LaneMark is on a packet that answers one that came out of a lane, and that must go
	// into a lane itself. RouteTable routes it.
	LaneMark = 0x20000000
	// ForwardedMark is on a packet for a pod that this node forwards and that is not an
	// answer. Netfilter sets it before kube-proxy masquerades; after that, the packet looks
	// like one of the node's own.
	ForwardedMark = 0x40000000
	// AnswerMark is on a pod's packets that answer a node but that connection tracking may
	// take for the start of a connection (bpf/src/flow.h).
	AnswerMark = 0x80000000
)

// Ports and identifiers of tunnels.
const (
	DefaultBasePort = 51871 // WireGuard's first UDP port; four are used
	VXLANDevice     = DevicePrefix + "vx"
	VXLANPort       = 4789 // RFC 7348, section 5
)

// VXLANMAC returns the hardware address of the VXLAN device, which is the same on every
// node: the lane is a layer-3 path, on which no device needs an address of its own.
func VXLANMAC() net.HardwareAddr { return net.HardwareAddr{0x0e, 0x5e, 0xa1, 0, 0, 1} }

// TunnelName returns the name of the WireGuard device for a pair of key generations:
// D[parity of own][parity of peer].
func TunnelName(own, peer uint64) string {
	return fmt.Sprintf("%swg%d%d", DevicePrefix, keymgr.Parity(own), keymgr.Parity(peer))
}
