// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package plan

import (
	"fmt"
	"net/netip"
)

// Names on the network between the nodes.
const (
	WireName = "wire" // the machine between the nodes
	Bridge   = "br0"  // its switch
)

// WireCommands make the switch, for ip(8).
func (o Options) WireCommands() []string {
	commands := []string{
		"link add " + Bridge + " type bridge",
		fmt.Sprintf("link set %s mtu %d up", Bridge, o.MTU),
	}
	for i, prefix := range o.Families.Wire() {
		addr := netip.PrefixFrom(host(o.Families.Wire(), wireHost)[i], prefix.Bits())
		commands = append(commands,
			fmt.Sprintf("address add %s dev %s%s", addr, Bridge, nodad(addr.Addr())),
			fmt.Sprintf("route add unreachable %s", anywhere(addr.Addr())))
	}
	return commands
}

// CableCommands connect a node, whose first process is pid, to the switch. They run on the wire.
func (o Options) CableCommands(n Node, pid int) []string {
	return []string{
		fmt.Sprintf("link add %s mtu %d type veth peer name eth0 mtu %d netns %d", n.Name, o.MTU, o.MTU, pid),
		fmt.Sprintf("link set %s master %s up", n.Name, Bridge),
	}
}

// NodeCommands give a node its addresses and routes, for ip(8).
func (o Options) NodeCommands(n Node) []string {
	commands := []string{"link set eth0 up"}
	for i, addr := range o.Families.NodeAddresses(n.Index) {
		prefix := o.Families.Wire()[i]
		commands = append(commands,
			fmt.Sprintf("address add %s dev eth0%s", netip.PrefixFrom(addr, prefix.Bits()), nodad(addr)),
			fmt.Sprintf("route add %s via %s", anywhere(addr), host(o.Families.Wire(), wireHost)[i]))
	}
	return commands
}

// anywhere is the default route of an address's family.
func anywhere(addr netip.Addr) netip.Prefix {
	if addr.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// nodad leaves out IPv6's search for duplicates, during which an address cannot be used.
func nodad(addr netip.Addr) string {
	if addr.Is4() {
		return ""
	}
	return " nodad"
}
