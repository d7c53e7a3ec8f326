// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package observe

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/sealane/sealane/policy/oracle"
)

// Explanation says why a connection is allowed or denied: by the policies of the API,
// and by the tables of the nodes that decide.
type Explanation struct {
	From          netip.Addr `json:"from"`
	To            netip.Addr `json:"to"`
	Protocol      string     `json:"protocol"`
	Port          uint16     `json:"port,omitempty"`
	Allowed       bool       `json:"allowed"`       // by the policies
	DryRunAllowed bool       `json:"dryRunAllowed"` // as if policies in dry run were in force
	Service       string     `json:"service,omitempty"`
	Egress        Direction  `json:"egress"`
	Ingress       Direction  `json:"ingress"`
}

// Direction is one direction of a connection, which the node of its pod decides.
type Direction struct {
	Pod    string `json:"pod,omitempty"`  // namespace/name; empty: not a pod, so no node decides
	Node   string `json:"node,omitempty"` // that the pod runs on
	Policy Side   `json:"policy"`
	DryRun Side   `json:"dryRun"`
	Tables *Found `json:"tables,omitempty"`
	// Problem is why the tables are not known.
	Problem string `json:"problem,omitempty"`
}

// NewExplanation returns what the policies decide; the caller adds the tables.
func NewExplanation(d oracle.Decision) Explanation {
	direction := func(s oracle.Side) Direction {
		return Direction{Pod: s.Pod, Policy: *sideOf(s, false), DryRun: *sideOf(s, true)}
	}
	return Explanation{
		From: d.Traffic.From, To: d.Traffic.To, Protocol: ProtocolName(d.Traffic.Protocol), Port: d.Traffic.Port,
		Allowed: d.Allowed(), DryRunAllowed: d.DryRunAllowed(), Egress: direction(d.Egress), Ingress: direction(d.Ingress),
	}
}

// Disagrees reports whether the tables decide otherwise than the policies.
func (e Explanation) Disagrees() bool { return e.Egress.disagrees() || e.Ingress.disagrees() }

// Incomplete reports whether a node could not be asked.
func (e Explanation) Incomplete() bool { return e.Egress.Problem != "" || e.Ingress.Problem != "" }

func (d Direction) disagrees() bool {
	return d.Tables != nil && (d.Tables.Allowed != d.Policy.Allowed || d.Tables.DryRunAllowed != d.DryRun.Allowed)
}

// Text explains for people, in lines.
func (e Explanation) Text() string {
	var b strings.Builder
	port := ""
	if e.Port != 0 {
		port = fmt.Sprintf(" port %d", e.Port)
	}
	fmt.Fprintf(&b, "%s -> %s %s%s: %s", end(e.Egress.Pod, e.From), end(e.Ingress.Pod, e.To), e.Protocol, port, allowed(e.Allowed))
	if e.DryRunAllowed != e.Allowed {
		fmt.Fprintf(&b, " (%s if policies in dry run were in force)", allowed(e.DryRunAllowed))
	}
	b.WriteString("\n")
	if e.Service != "" {
		fmt.Fprintf(&b, "  %s is the address of service %s: policies judge the address of the backend, so ask for that instead\n", e.To, e.Service)
	}
	e.Egress.text(&b, "egress")
	e.Ingress.text(&b, "ingress")
	return b.String()
}

func end(pod string, a netip.Addr) string {
	if pod == "" {
		return a.String()
	}
	return pod + " (" + a.String() + ")"
}

func allowed(yes bool) string {
	if yes {
		return "allowed"
	}
	return "denied"
}

func (d Direction) text(b *strings.Builder, name string) {
	if d.Pod == "" {
		fmt.Fprintf(b, "  %s: not a pod, so no policy applies\n", name)
		return
	}
	said := d.Policy.String()
	if d.Policy.Always != "" {
		said = "allowed: " + d.Policy.Always
	}
	fmt.Fprintf(b, "  %s of %s: %s\n", name, d.Pod, said)
	if d.DryRun.Allowed != d.Policy.Allowed {
		fmt.Fprintf(b, "    %s\n", d.DryRun)
	}
	switch {
	case d.Problem != "":
		fmt.Fprintf(b, "    tables of node %s: not known: %s\n", d.Node, d.Problem)
	case d.Tables != nil:
		fmt.Fprintf(b, "    tables of node %s: %s\n", d.Node, d.tables())
	}
}

func (d Direction) tables() string {
	text := allowed(d.Tables.Allowed)
	if d.Tables.DryRunAllowed != d.Tables.Allowed {
		text += ", in dry run " + allowed(d.Tables.DryRunAllowed)
	}
	if !d.disagrees() {
		return text + ", they agree"
	}
	text += ", THEY DISAGREE"
	switch {
	case d.Tables.NoPolicy:
		text += ": the pod has no endpoint policy there"
	case d.Tables.UnknownPeer:
		text += ": the other end is unknown there"
	}
	return text
}
