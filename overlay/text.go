// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package overlay

import (
	"fmt"
	"strings"
)

// String returns the plan as text, one thing per line, always in the same order.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "kind %s mtu %d\n", p.Kind, p.MTU)
	for _, a := range p.Addresses {
		fmt.Fprintf(&b, "address %s\n", a)
	}
	for _, t := range p.Tunnels {
		fmt.Fprintln(&b, t)
		for _, peer := range t.Peers {
			fmt.Fprintf(&b, "  %s\n", peer)
		}
	}
	lines(&b, p.Routes)
	lines(&b, p.Rules)
	lines(&b, p.Forward)
	b.WriteString(p.Masquerade.String())
	lines(&b, p.Refused)
	return b.String()
}

func lines[T fmt.Stringer](b *strings.Builder, things []T) {
	for _, t := range things {
		fmt.Fprintln(b, t)
	}
}

// String returns the tunnel without its peers.
func (t Tunnel) String() string {
	s := fmt.Sprintf("tunnel %s port %d", t.Device, t.Port)
	if t.Own != 0 {
		s += fmt.Sprintf(" generation %d", t.Own)
	}
	return s
}

// String returns the peer in one line.
func (p TunnelPeer) String() string {
	s := fmt.Sprintf("peer %s key %s endpoint %s allowed %s", p.ID, p.Key, p.Endpoint, join(p.AllowedIPs))
	if p.Preshared {
		s += " preshared"
	}
	if p.Initiate {
		s += " initiate"
	}
	return s
}

// String returns the route in the style of ip-route(8).
func (r Route) String() string {
	var b strings.Builder
	b.WriteString("route ")
	if r.Unreachable {
		b.WriteString("unreachable ")
	}
	b.WriteString(r.Dst.String())
	if r.Device != "" {
		fmt.Fprintf(&b, " dev %s", r.Device)
	}
	if r.Src.IsValid() {
		fmt.Fprintf(&b, " src %s", r.Src)
	}
	for _, w := range []struct {
		name  string
		value int
	}{{"table", r.Table}, {"metric", r.Metric}, {"mtu", r.MTU}} {
		if w.value != 0 {
			fmt.Fprintf(&b, " %s %d", w.name, w.value)
		}
	}
	return b.String()
}

// String returns the rule in the style of ip-rule(8).
func (r Rule) String() string {
	mark := ""
	if r.Mark != 0 {
		mark = fmt.Sprintf(" fwmark %#x/%#[1]x", r.Mark)
	}
	return fmt.Sprintf("rule %d: from %s%s lookup %d", r.Priority, r.From, mark, r.Table)
}

// String returns the entry in one line.
func (f Forward) String() string {
	s := fmt.Sprintf("forward %s %s", f.Prefix, f.Kind)
	if f.Device != "" {
		s += " dev " + f.Device
	}
	if f.Remote.IsValid() {
		s += " remote " + f.Remote.String()
	}
	return s
}

// String returns five lines.
func (m Masquerade) String() string {
	return fmt.Sprintf("masquerade pods %s\nmasquerade cluster %s\nmasquerade nodes %s\nmasquerade peers %s\nmasquerade sources %s\n",
		join(m.Pods), join(m.Cluster), join(m.Nodes), join(m.Peers), join(m.Sources))
}

// String returns the refusal in one line.
func (r Refusal) String() string {
	what := "refused in part"
	if r.Whole {
		what = "refused"
	}
	return fmt.Sprintf("%s %s: %s", what, r.ID, r.Reason)
}

func join[T fmt.Stringer](things []T) string {
	if len(things) == 0 {
		return "-"
	}
	s := make([]string, 0, len(things))
	for _, t := range things {
		s = append(s, t.String())
	}
	return strings.Join(s, ",")
}
