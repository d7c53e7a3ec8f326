// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import "regexp"

// group is a part of a suite.
type group struct {
	name        string
	focus, skip *regexp.Regexp // a test belongs to it that matches focus and not skip
	want        int            // so many have to pass
}

func (g group) has(name string) bool { return g.focus.MatchString(name) && !g.skip.MatchString(name) }

// suite returns the groups that run at once, nil if there is no such suite. The tests of network policies are a suite
// of their own: each makes so many connections that more than two at once on two processors do not end sooner.
func suite(name string) []group {
	sctp := regexp.MustCompile("SCTP")
	conformance := group{"conformance", regexp.MustCompile(`\[sig-network\].*\[Conformance\]`), sctp, 47}
	switch name {
	case "conformance":
		return []group{conformance}
	case "network":
		return []group{
			conformance,
			{"dual-stack", regexp.MustCompile(`\[sig-network\].*IPv6DualStack`), sctp, 22},
			{"others", regexp.MustCompile(`\[sig-network\]`), regexp.MustCompile(
				`\[Serial\]|\[Disruptive\]|\[Slow\]|\[Alpha|\[Flaky\]|\[Feature|\[Conformance\]|SCTP|Netpol`), 59},
		}
	case "policy":
		return []group{{"policy", regexp.MustCompile(`\bNetpol\b`), sctp, 45}}
	}
	return nil
}
