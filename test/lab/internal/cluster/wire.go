// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"context"

	"github.com/sealane/sealane/test/lab/internal/machine"
	"github.com/sealane/sealane/test/lab/internal/plan"
)

// startWire starts the switch. Nothing leads from it to the real machine's network.
func (l *Lab) startWire(ctx context.Context, o plan.Options) error {
	m, err := machine.Launch(ctx, l.tree, machine.Spec{
		Kind:  machine.Wire,
		Name:  plan.WireName,
		Group: l.paths.Group() + "/" + plan.WireName,
		Dir:   l.wireDir(),
		Logs:  l.paths.Logs() + "/" + plan.WireName,
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
	return m.Network(ctx, o.WireCommands())
}

// cable connects a node to the switch.
func (l *Lab) cable(ctx context.Context, o plan.Options, n plan.Node, m *machine.Machine) error {
	wire, err := l.machineOf(plan.WireName)
	if err != nil {
		return err
	}
	if err := wire.Network(ctx, o.CableCommands(n, m.PID)); err != nil {
		return err
	}
	return m.Network(ctx, o.NodeCommands(n))
}
