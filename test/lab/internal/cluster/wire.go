// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/sealane/sealane/test/lab/internal/machine"
)

const (
	wireName = "wire" // the machine between the nodes
	bridge   = "br0"  // its switch
)

// startWire starts the switch. Nothing leads from it to the real machine's network.
func (l *Lab) startWire(ctx context.Context, o Options) error {
	m, err := machine.Launch(ctx, l.tree, machine.Spec{
		Kind:  machine.Wire,
		Name:  wireName,
		Group: l.places.Group() + "/" + wireName,
		Dir:   l.wireDir(),
		Logs:  l.places.Logs() + "/" + wireName,
		Sysctls: map[string]string{
			// Only a router says "unreachable"; and a bridge must not ask the firewall.
			"net/ipv4/ip_forward":                 "1",
			"net/ipv6/conf/all/forwarding":        "1",
			"net/bridge/bridge-nf-call-iptables":  "0",
			"net/bridge/bridge-nf-call-ip6tables": "0",
		},
	})
	if err != nil {
		return err
	}
	return m.Network(ctx, wireCommands(o))
}

// wireCommands make the switch, for ip(8).
func wireCommands(o Options) []string {
	commands := []string{
		"link add " + bridge + " type bridge",
		fmt.Sprintf("link set %s mtu %d up", bridge, o.MTU),
	}
	for i, prefix := range o.Families.wire() {
		addr := netip.PrefixFrom(host(o.Families.wire(), wireHost)[i], prefix.Bits())
		commands = append(commands,
			fmt.Sprintf("address add %s dev %s%s", addr, bridge, nodad(addr.Addr())),
			fmt.Sprintf("route add unreachable %s", anywhere(addr.Addr())))
	}
	return commands
}

// cable connects a node to the switch.
func (l *Lab) cable(ctx context.Context, o Options, n node, m *machine.Machine) error {
	wire, err := l.machineOf(wireName)
	if err != nil {
		return err
	}
	if err := wire.Network(ctx, []string{
		fmt.Sprintf("link add %s mtu %d type veth peer name eth0 mtu %d netns %d", n.Name, o.MTU, o.MTU, m.PID),
		fmt.Sprintf("link set %s master %s up", n.Name, bridge),
	}); err != nil {
		return err
	}
	return m.Network(ctx, nodeCommands(o, n))
}

// nodeCommands give a node its addresses and routes, for ip(8).
func nodeCommands(o Options, n node) []string {
	commands := []string{"link set eth0 up"}
	for i, addr := range o.Families.nodeAddresses(n.Index) {
		prefix := o.Families.wire()[i]
		commands = append(commands,
			fmt.Sprintf("address add %s dev eth0%s", netip.PrefixFrom(addr, prefix.Bits()), nodad(addr)),
			fmt.Sprintf("route add %s via %s", anywhere(addr), host(o.Families.wire(), wireHost)[i]))
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
