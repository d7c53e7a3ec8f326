// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sealane/sealane/controller/authority"
	"github.com/sealane/sealane/controller/revocation"
	"github.com/sealane/sealane/controller/signer"
)

// metrics holds the metrics of all parts. Only the
// leader sets them, but for the gauge that says whether it leads.
type metrics struct {
	authority  *authority.Metrics
	signer     *signer.Metrics
	revocation *revocation.Metrics
	leader     prometheus.Gauge
	failures   prometheus.Counter
}

func newMetrics(registry prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		authority: authority.NewMetrics(), signer: signer.NewMetrics(), revocation: revocation.NewMetrics(),
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sealane_controller_leader", Help: "1 while this controller is the leader, else 0.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealane_controller_pass_failures_total", Help: "Passes over requests and nodes in which something failed; they are repeated.",
		}),
	}
	for _, c := range []prometheus.Collector{m.authority, m.signer, m.revocation, m.leader, m.failures} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// resign resets what only a leader knows.
func (m *metrics) resign() {
	m.leader.Set(0)
	m.authority.Reset()
	m.signer.Reset()
	m.revocation.Reset()
}
