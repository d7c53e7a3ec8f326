// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package observe

import (
	"fmt"
	"strings"
)

const clock = "15:04:05.000"

// Text returns the record as one line for people, without line end; empty for the
// first line of the stream.
func (r Record) Text() string {
	at := r.Time.Local().Format(clock) + " " + r.Node
	switch {
	case r.Begun:
		return ""
	case r.Lost > 0:
		return fmt.Sprintf("%s %d flows are not shown: the reader was too slow", at, r.Lost)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s -> %s %s", at, verdictWord(r.Verdict), r.Source, r.Destination, r.Protocol)
	if r.Service != nil {
		fmt.Fprintf(&b, " by service %s", strings.TrimSpace(r.Service.Name+" "+r.Service.Address.String()))
	}
	if r.Reason != "" {
		fmt.Fprintf(&b, "; %s", r.Reason)
	}
	for _, side := range []struct {
		name string
		*Side
	}{{"egress", r.Egress}, {"ingress", r.Ingress}} {
		if side.Side != nil {
			fmt.Fprintf(&b, "; %s %s", side.name, side.Side)
		}
	}
	if r.Lane != nil {
		fmt.Fprintf(&b, "; lane to %s: %s", r.Lane.Peer, r.Lane)
	}
	return b.String()
}

// verdictWord makes the verdicts that people look for stand out.
func verdictWord(verdict string) string {
	switch verdict {
	case Denied:
		return "DENIED"
	case DryRunDenied:
		return "DRY-RUN-DENIED"
	}
	return verdict
}
