// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sealane/sealane/keymgr"
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
	offline   prometheus.Gauge
	wanted    prometheus.Gauge
	phase     *prometheus.GaugeVec
	since     prometheus.Gauge
	waiting   prometheus.Gauge
	revoked   *prometheus.GaugeVec
	list      prometheus.Gauge
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
		offline: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sealane_controller_root_offline", Help: "1 while the root's key is not in the cluster, else 0.",
		}),
		wanted: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sealane_controller_root_wanted", Help: "1 while the intermediate is due and only the operator, who has the root's key, can renew it, else 0.",
		}),
		phase: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sealane_controller_root_rotation_phase", Help: "1 for the phase that a change of roots is in: steady, announced, switched or dropped.",
		}, []string{"phase"}),
		since: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sealane_controller_root_rotation_since_timestamp_seconds", Help: "Since when a change of roots has been in its phase, in Unix time; 0: there was none.",
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sealane_controller_root_rotation_waiting_nodes", Help: "Nodes that the next phase of a change of roots waits for.",
		}),
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sealane_controller_leader", Help: "1 while this controller is the one that works, else 0.",
		}),
		revoked: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sealane_controller_revoked_nodes", Help: "Nodes in the revocation list: blocked ones, and readmitted ones whose old certificates stay revoked.",
		}, []string{"state"}),
		list: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sealane_controller_revocation_list_number", Help: "Number of the published revocation list.",
		}),
	}
	for _, c := range []prometheus.Collector{
		m.issued, m.denied, m.pending, m.failures, m.collected, m.notAfter, m.leader,
		m.offline, m.wanted, m.phase, m.since, m.waiting, m.revoked, m.list,
	} {
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

// rotation shows how a change of roots fares, and what is asked of the operator.
func (m *metrics) rotation(s ca.Status, waiting int) {
	m.offline.Set(truth(s.RootOffline))
	m.wanted.Set(truth(s.RootWanted))
	m.phase.Reset()
	m.phase.WithLabelValues(string(s.Stage.Phase)).Set(1)
	m.since.Set(0)
	if !s.Since.IsZero() {
		m.since.Set(float64(s.Since.Unix()))
	}
	m.waiting.Set(float64(waiting))
}

// resign forgets what only the leader may tell.
func (m *metrics) resign() {
	m.leader.Set(0)
	m.phase.Reset()
	m.notAfter.Reset()
	m.revoked.Reset()
	for _, g := range []prometheus.Gauge{m.offline, m.wanted, m.since, m.waiting, m.pending, m.list} {
		g.Set(0)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m *metrics) revocations(l keymgr.RevocationList) {
	blocked := 0
	for _, n := range l.Nodes {
		if n.Blocked {
			blocked++
		}
	}
	m.revoked.WithLabelValues("blocked").Set(float64(blocked))
	m.revoked.WithLabelValues("readmitted").Set(float64(len(l.Nodes) - blocked))
	m.list.Set(float64(l.Number))
}
