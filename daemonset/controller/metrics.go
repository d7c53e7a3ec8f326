// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sealane/sealane/keymgr/ca"
)

// metrics are the controller's own. All but leader are of the leader only.
type metrics struct {
	issued    prometheus.Counter
	denied    *prometheus.CounterVec
	pending   prometheus.Gauge
	failures  prometheus.Counter
	collected prometheus.Counter
	notAfter  *prometheus.GaugeVec
	leader    prometheus.Gauge
}

func newMetrics(registry prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		issued: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealane_controller_certificates_issued_total", Help: "Node certificates issued.",
		}),
		denied: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealane_controller_requests_denied_total", Help: "Certificate requests denied, by reason.",
		}, []string{"reason"}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sealane_controller_pending_requests", Help: "Certificate requests that wait for an answer.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealane_controller_pass_failures_total", Help: "Passes over requests and nodes in which something failed; they are repeated.",
		}),
		collected: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealane_controller_nodekeys_collected_total", Help: "NodeKeys removed because their node is gone.",
		}),
		notAfter: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sealane_controller_ca_not_after_timestamp_seconds", Help: "End of validity of the root and the intermediate certificate.",
		}, []string{"certificate"}),
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sealane_controller_leader", Help: "1 while this controller is the one that works, else 0.",
		}),
	}
	for _, c := range []prometheus.Collector{m.issued, m.denied, m.pending, m.failures, m.collected, m.notAfter, m.leader} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) authority(s ca.Status) {
	m.notAfter.WithLabelValues("root").Set(float64(s.Root.NotAfter.Unix()))
	m.notAfter.WithLabelValues("intermediate").Set(float64(s.Intermediate.NotAfter.Unix()))
}
