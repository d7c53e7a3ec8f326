// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package revocation

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sealane/sealane/keymgr"
)

// Metrics describes the published list and counts what was collected. Only the
// leader sets values.
type Metrics struct {
	nodes     *prometheus.GaugeVec
	number    prometheus.Gauge
	collected prometheus.Counter
}

// NewMetrics returns the metrics of revocations. Register them as one collector.
func NewMetrics() *Metrics {
	return &Metrics{
		nodes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sealane_controller_revoked_nodes", Help: "Nodes in the revocation list: blocked ones, and readmitted ones whose old certificates stay revoked.",
		}, []string{"state"}),
		number: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sealane_controller_revocation_list_number", Help: "Number of the published revocation list.",
		}),
		collected: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealane_controller_nodekeys_collected_total", Help: "NodeKeys removed because their node is gone.",
		}),
	}
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	m.nodes.Describe(ch)
	m.number.Describe(ch)
	m.collected.Describe(ch)
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.nodes.Collect(ch)
	m.number.Collect(ch)
	m.collected.Collect(ch)
}

// Reset forgets what is true of the leader only, when this controller stops
// leading. Counters stay.
func (m *Metrics) Reset() {
	m.nodes.Reset()
	m.number.Set(0)
}

func (m *Metrics) set(l keymgr.RevocationList) {
	blocked := 0
	for _, n := range l.Nodes {
		if n.Blocked {
			blocked++
		}
	}
	m.nodes.WithLabelValues("blocked").Set(float64(blocked))
	m.nodes.WithLabelValues("readmitted").Set(float64(len(l.Nodes) - blocked))
	m.number.Set(float64(l.Number))
}
