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
	// LaneMark is the bit of a packet's mark that says: this answers what came out
	// of a lane, and has to go into one. RouteTable has the way.
	LaneMark = 0x20000000
	// UnreachableMetric is the metric of the unreachable routes behind the lanes' routes.
	UnreachableMetric = 4278198272
)

// Ports and identifiers of the lanes.
const (
	DefaultBasePort = 51871 // WireGuard's first UDP port; four are used
	VXLANDevice     = DevicePrefix + "vx"
	VXLANPort       = 4789 // RFC 7348, section 5
	VNI             = 5154 // VXLAN network identifier
)

// VXLANMAC is the hardware address of the VXLAN device on every node. One for all:
// the lane is a layer-3 path, nobody has to be told apart on it.
func VXLANMAC() net.HardwareAddr { return net.HardwareAddr{0x0e, 0x5e, 0xa1, 0, 0, 1} }

// TunnelName returns the name of the WireGuard device for the key generations of a
// pair: D[parity of own][parity of the peer's].
func TunnelName(own, peer uint64) string {
	return fmt.Sprintf("%swg%d%d", DevicePrefix, keymgr.Parity(own), keymgr.Parity(peer))
}
