// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package signer

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts requests and certificates. Only the leader sets values.
type Metrics struct {
	issued    prometheus.Counter
	denied    *prometheus.CounterVec
	pending   prometheus.Gauge
	addresses prometheus.Counter
}

// NewMetrics returns the metrics of the signer. Register them as one collector.
func NewMetrics() *Metrics {
	return &Metrics{
		issued: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealane_controller_certificates_issued_total", Help: "Node certificates issued.",
		}),
		denied: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealane_controller_requests_denied_total", Help: "Certificate requests denied, by reason.",
		}, []string{"reason"}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sealane_controller_pending_requests", Help: "Certificate requests that wait for an answer.",
		}),
		addresses: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealane_controller_node_addresses_refused_total", Help: "Addresses of Nodes that the certificate issued to the node leaves out.",
		}),
	}
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	m.issued.Describe(ch)
	m.denied.Describe(ch)
	m.pending.Describe(ch)
	m.addresses.Describe(ch)
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.issued.Collect(ch)
	m.denied.Collect(ch)
	m.pending.Collect(ch)
	m.addresses.Collect(ch)
}

// Reset forgets what is true of the leader only, when this controller stops
// leading. Counters stay.
func (m *Metrics) Reset() { m.pending.Set(0) }
