// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package metrics

import "github.com/sealane/sealane/daemonset/status"

func enforcementMetrics() []metric {
	number := func(name, help string, value func(status.Enforcement) int) metric {
		return gauge(name, help, func(n status.Node) float64 { return float64(value(n.Enforcement)) })
	}
	counter := func(name, help string, value func(status.Enforcement) uint64) metric {
		m := gauge(name, help, func(n status.Node) float64 { return float64(value(n.Enforcement)) })
		m.counter = true
		return m
	}
	return []metric{
		gauge("sealane_enforcement_active", "Whether policies and services are those of the API (1), or those that an earlier daemon left (0).",
			func(n status.Node) float64 { return truth(n.Enforcement.Enforcing) }),
		gauge("sealane_enforcement_incomplete", "Whether something is missing in the data path (1), which denies what it would allow.",
			func(n status.Node) float64 { return truth(n.Enforcement.Problem != "") }),
		{
			name: "sealane_enforcement_entries", help: "Entries that the data path should have, by table.", labels: []string{"table"},
			samples: func(n status.Node) []sample { return entries(n.Enforcement) },
		},
		number("sealane_enforcement_waiting_pods", "Pods that cannot be connected yet, because their policies are not known or not written.",
			func(e status.Enforcement) int { return e.Waiting }),
		number("sealane_enforcement_refused_pods", "Pods of the cluster that claim an address which their node cannot give.",
			func(e status.Enforcement) int { return e.RefusedPods }),
		counter("sealane_enforcement_writes_total", "Times that a difference, or the whole, was written to the data path.",
			func(e status.Enforcement) uint64 { return e.Writes }),
		counter("sealane_enforcement_failed_writes_total", "Writes of which the data path refused something.",
			func(e status.Enforcement) uint64 { return e.FailedWrites }),
		gauge("sealane_enforcement_last_write_seconds", "How long compiling and writing took the last time.",
			func(n status.Node) float64 { return n.Enforcement.LastWrite }),
		{
			name: "sealane_enforcement_delay_seconds", help: "From the arrival of a change at the node until it is in the data path.",
			histogram: func(n status.Node) status.Histogram { return n.Enforcement.Delay },
		},
	}
}

func entries(e status.Enforcement) []sample {
	return []sample{
		*labelled(float64(e.Identities), "identities"), *labelled(float64(e.Blocks), "blocks"), *labelled(float64(e.Guards), "guards"),
		*labelled(float64(e.Sets), "sets"), *labelled(float64(e.Rules), "rules"), *labelled(float64(e.PortSets), "ports"),
		*labelled(float64(e.Frontends), "frontends"), *labelled(float64(e.Backends), "backends"),
	}
}
