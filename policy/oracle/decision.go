// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package oracle

import (
	"fmt"
	"strings"

	"github.com/sealane/sealane/internal/ipproto"
	"github.com/sealane/sealane/policy"
)

// Decision is what [Decide] found, and why.
type Decision struct {
	Traffic policy.Traffic // addresses without IPv4 in IPv6 form
	Egress  Side           // of the pod that begins
	Ingress Side           // of the pod that is connected to
}

// Side is one end of a connection.
type Side struct {
	Pod    string // namespace/name; empty: no pod has the address
	Always string // why it is allowed whatever policies say; empty: policies are asked
	Now    Judgement
	DryRun Judgement // as if policies in dry run were in force
}

// Judgement is what policies say of one direction.
type Judgement struct {
	Allowed bool
	Reasons
}

// Reasons are where a judgement is from.
type Reasons struct {
	Isolating []string // policies that select the pod, such as "default/web"
	Allowing  []string // rules that allow, such as "default/web ingress[0] from[1] ports[0]"
}

// Allowed reports whether the connection may begin.
func (d Decision) Allowed() bool { return d.Egress.Now.Allowed && d.Ingress.Now.Allowed }

// DryRunAllowed reports whether it might if policies in dry run were in force.
func (d Decision) DryRunAllowed() bool { return d.Egress.DryRun.Allowed && d.Ingress.DryRun.Allowed }

// String explains the decision in three lines, or in more if policies in dry
// run would decide otherwise.
func (d Decision) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s -> %s: %s\n", d.Traffic.From, target(d.Traffic), verb(d.Allowed()))
	d.Egress.explain(&b, "egress")
	d.Ingress.explain(&b, "ingress")
	return b.String()
}

func target(x policy.Traffic) string {
	name := fmt.Sprintf("protocol %d", x.Protocol)
	switch x.Protocol {
	case ipproto.TCP:
		name = "TCP"
	case ipproto.UDP:
		name = "UDP"
	case ipproto.SCTP:
		name = "SCTP"
	default:
		return fmt.Sprintf("%s %s", x.To, name)
	}
	return fmt.Sprintf("%s %s port %d", x.To, name, x.Port)
}

func verb(allowed bool) string {
	if allowed {
		return "allowed"
	}
	return "denied"
}

func (s Side) explain(b *strings.Builder, direction string) {
	who := ""
	if s.Pod != "" {
		who = " of " + s.Pod
	}
	if s.Always != "" {
		fmt.Fprintf(b, "  %s%s: allowed: %s\n", direction, who, s.Always)
		return
	}
	fmt.Fprintf(b, "  %s%s: %s\n", direction, who, s.Now)
	if s.DryRun.Allowed != s.Now.Allowed {
		fmt.Fprintf(b, "  %s%s with policies in dry run: %s\n", direction, who, s.DryRun)
	}
}

// String is one line: the verdict, and the policies or rules that it is from.
func (j Judgement) String() string {
	switch {
	case j.Allowed && len(j.Isolating) == 0:
		return "allowed: no policy isolates it"
	case j.Allowed:
		return "allowed by " + strings.Join(j.Allowing, ", ")
	}
	return "denied: isolated by " + strings.Join(j.Isolating, ", ") + ", and no rule allows it"
}
