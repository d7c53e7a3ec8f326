// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package observe

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/sealane/sealane/policy"
)

// Explanation is why a connection may begin or not: by the policies of the API,
// and by the tables of the nodes that decide.
type Explanation struct {
	From         netip.Addr `json:"from"`
	To           netip.Addr `json:"to"`
	Protocol     string     `json:"protocol"`
	Port         uint16     `json:"port,omitempty"`
	Allowed      bool       `json:"allowed"`      // by the policies
	TrialAllowed bool       `json:"trialAllowed"` // as if policies in dry run were in force
	Service      string     `json:"service,omitempty"`
	Egress       Direction  `json:"egress"`
	Ingress      Direction  `json:"ingress"`
}

// Direction is one direction of a connection, which the node of its pod decides.
type Direction struct {
	Pod    string `json:"pod,omitempty"`  // namespace/name; empty: no pod, hence nobody decides
	Node   string `json:"node,omitempty"` // that the pod runs on
	Policy Side   `json:"policy"`
	Trial  Side   `json:"trial"`
	Tables *Found `json:"tables,omitempty"`
	// Problem is why the tables are not known.
	Problem string `json:"problem,omitempty"`
}

// NewExplanation says what the policies say; what the tables say is to be added.
func NewExplanation(d policy.Decision) Explanation {
	direction := func(s policy.Side) Direction {
		return Direction{Pod: s.Pod, Policy: *sideOf(s, false), Trial: *sideOf(s, true)}
	}
	return Explanation{
		From: d.Traffic.From, To: d.Traffic.To, Protocol: ProtocolName(d.Traffic.Protocol), Port: d.Traffic.Port,
		Allowed: d.Allowed(), TrialAllowed: d.TrialAllowed(), Egress: direction(d.Egress), Ingress: direction(d.Ingress),
	}
}

// Disagrees says that the tables decide otherwise than the policies.
func (e Explanation) Disagrees() bool { return e.Egress.disagrees() || e.Ingress.disagrees() }

// Incomplete says that a node could not be asked.
func (e Explanation) Incomplete() bool { return e.Egress.Problem != "" || e.Ingress.Problem != "" }

func (d Direction) disagrees() bool {
	return d.Tables != nil && (d.Tables.Allowed != d.Policy.Allowed || d.Tables.TrialAllowed != d.Trial.Allowed)
}

// Text explains for people, in lines.
func (e Explanation) Text() string {
	var b strings.Builder
	port := ""
	if e.Port != 0 {
		port = fmt.Sprintf(" port %d", e.Port)
	}
	fmt.Fprintf(&b, "%s -> %s %s%s: %s", end(e.Egress.Pod, e.From), end(e.Ingress.Pod, e.To), e.Protocol, port, allowed(e.Allowed))
	if e.TrialAllowed != e.Allowed {
		fmt.Fprintf(&b, " (%s if policies in dry run were in force)", allowed(e.TrialAllowed))
	}
	b.WriteString("\n")
	if e.Service != "" {
		fmt.Fprintf(&b, "  %s is the address of service %s: what pods ask it for is decided by the address of the backend; ask for that\n", e.To, e.Service)
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
		fmt.Fprintf(b, "  %s: no pod, hence no policy\n", name)
		return
	}
	said := d.Policy.String()
	if d.Policy.Always != "" {
		said = "allowed: " + d.Policy.Always
	}
	fmt.Fprintf(b, "  %s of %s: %s\n", name, d.Pod, said)
	if d.Trial.Allowed != d.Policy.Allowed {
		fmt.Fprintf(b, "    %s\n", d.Trial)
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
	if d.Tables.TrialAllowed != d.Tables.Allowed {
		text += ", in dry run " + allowed(d.Tables.TrialAllowed)
	}
	if !d.disagrees() {
		return text + ", they agree"
	}
	text += ", THEY DISAGREE"
	switch {
	case d.Tables.Unguarded:
		text += ": the pod has no guard there"
	case d.Tables.UnknownPeer:
		text += ": the other end is not known there"
	}
	return text
}
