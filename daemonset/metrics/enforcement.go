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
		gauge("sealane_enforcement_active", "1 if the data path enforces the policies and services of the API; 0 while it enforces what an earlier daemon left.",
			func(n status.Node) float64 { return truth(n.Enforcement.Enforcing) }),
		gauge("sealane_enforcement_incomplete", "1 if the data path lacks entries; it denies the traffic that they would allow.",
			func(n status.Node) float64 { return truth(n.Enforcement.Problem != "") }),
		{
			name: "sealane_enforcement_entries", help: "Entries that the data path should hold, by table.", labels: []string{"table"},
			samples: func(n status.Node) []sample { return entries(n.Enforcement) },
		},
		number("sealane_enforcement_waiting_pods", "Pods that wait for their network until their policies are known and written to the data path.",
			func(e status.Enforcement) int { return e.Waiting }),
		number("sealane_enforcement_refused_pods", "Pods of the cluster that claim an address outside the pod ranges of their node; policies ignore them.",
			func(e status.Enforcement) int { return e.RefusedPods }),
		counter("sealane_enforcement_writes_total", "Writes of policies and services to the data path, full or incremental.",
			func(e status.Enforcement) uint64 { return e.Writes }),
		counter("sealane_enforcement_failed_writes_total", "Writes that failed at least in part; the daemon retries them.",
			func(e status.Enforcement) uint64 { return e.FailedWrites }),
		gauge("sealane_enforcement_last_write_seconds", "Duration of the last compilation and write of policies and services, in seconds.",
			func(n status.Node) float64 { return n.Enforcement.LastWrite }),
		{
			name: "sealane_enforcement_delay_seconds", help: "Time from the arrival of a change at the node until the data path enforces it, in seconds.",
			histogram: func(n status.Node) status.Histogram { return n.Enforcement.Delay },
		},
	}
}

func entries(e status.Enforcement) []sample {
	return []sample{
		*labelled(float64(e.Identities), "identities"), *labelled(float64(e.Blocks), "blocks"), *labelled(float64(e.EndpointPolicies), "endpoint_policies"),
		*labelled(float64(e.Sets), "sets"), *labelled(float64(e.Rules), "rules"), *labelled(float64(e.PortSets), "ports"),
		*labelled(float64(e.Frontends), "frontends"), *labelled(float64(e.Backends), "backends"),
	}
}
