// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package authority

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sealane/sealane/keymgr/ca"
)

// Metrics describes the CA. Only the leader sets values.
type Metrics struct {
	notAfter *prometheus.GaugeVec
	offline  prometheus.Gauge
	wanted   prometheus.Gauge
	phase    *prometheus.GaugeVec
	since    prometheus.Gauge
	waiting  prometheus.Gauge
}

// NewMetrics returns the metrics of the CA. Register them as one collector.
func NewMetrics() *Metrics {
	return &Metrics{
		notAfter: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sealane_controller_ca_not_after_timestamp_seconds", Help: "End of validity of the root and the intermediate certificate, in Unix time.",
		}, []string{"certificate"}),
		offline: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sealane_controller_root_offline", Help: "1 while the root's key is not in the cluster, else 0.",
		}),
		wanted: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sealane_controller_root_wanted", Help: "1 while the intermediate is due and only the operator, who has the root's key, can renew it, else 0.",
		}),
		phase: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sealane_controller_root_rotation_phase", Help: "1 for the current phase of a change of roots: steady, announced, switched or dropped.",
		}, []string{"phase"}),
		since: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sealane_controller_root_rotation_since_timestamp_seconds", Help: "When the current phase of a change of roots began, in Unix time; 0: the root was never changed.",
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sealane_controller_root_rotation_waiting_nodes", Help: "Nodes that the next phase of a change of roots waits for.",
		}),
	}
}

func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.notAfter, m.offline, m.wanted, m.phase, m.since, m.waiting}
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(ch)
	}
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(ch)
	}
}

// Reset forgets all values, when this controller stops leading.
func (m *Metrics) Reset() {
	m.notAfter.Reset()
	m.phase.Reset()
	for _, g := range []prometheus.Gauge{m.offline, m.wanted, m.since, m.waiting} {
		g.Set(0)
	}
}

func (m *Metrics) setValidity(s ca.Status) {
	m.notAfter.WithLabelValues("root").Set(float64(s.Root.NotAfter.Unix()))
	m.notAfter.WithLabelValues("intermediate").Set(float64(s.Intermediate.NotAfter.Unix()))
}

// setRotation shows how far a change of roots is, and what it needs from the operator.
func (m *Metrics) setRotation(s ca.Status, waiting int) {
	m.offline.Set(boolValue(s.RootOffline))
	m.wanted.Set(boolValue(s.RootWanted))
	m.phase.Reset()
	m.phase.WithLabelValues(string(s.Stage.Phase)).Set(1)
	m.since.Set(0)
	if !s.Since.IsZero() {
		m.since.Set(float64(s.Since.Unix()))
	}
	m.waiting.Set(float64(waiting))
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
