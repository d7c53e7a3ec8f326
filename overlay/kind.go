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

// What marks everything of Sealane's on a node.
const (
	DeviceGroup   = 0x5ea1     // device group of tunnels and of the pods' host devices
	DevicePrefix  = "sealane-" // of every tunnel's name, and of no other device
	RouteProtocol = 94         // routes of Sealane's
	RouteTable    = 5154       // where pods' packets to remote nodes find their lane
	RulePriority  = 5154
	// UnreachableMetric is the metric of the unreachable routes behind the lanes' routes.
	UnreachableMetric = 4278198272
)

// Bits of packets' marks. The programs of package bpf set and read the same ones.
const (
	// LaneMark is on what answers a packet that came out of a lane, and has to go
	// into one. RouteTable has the way.
	LaneMark = 0x20000000
	// ForwardedMark is on a packet for a pod that this node forwards, and that is no
	// answer. Netfilter sets it before kube-proxy masquerades, after which the packet
	// looks like the node's own.
	ForwardedMark = 0x40000000
	// AnswerMark is on packets of a pod that answer a node, which connection tracking
	// may take for a beginning (bpf/src/flow.h).
	AnswerMark = 0x80000000
)

// Ports and identifiers of tunnels.
const (
	DefaultBasePort = 51871 // WireGuard's first UDP port; four are used
	VXLANDevice     = DevicePrefix + "vx"
	VXLANPort       = 4789 // RFC 7348, section 5
)

// VXLANMAC is the hardware address of the VXLAN device on every node. One for all:
// the lane is a layer-3 path, nobody has to be told apart on it.
func VXLANMAC() net.HardwareAddr { return net.HardwareAddr{0x0e, 0x5e, 0xa1, 0, 0, 1} }

// TunnelName returns the name of the WireGuard device for the key generations of a
// pair: D[parity of own][parity of the peer's].
func TunnelName(own, peer uint64) string {
	return fmt.Sprintf("%swg%d%d", DevicePrefix, keymgr.Parity(own), keymgr.Parity(peer))
}
