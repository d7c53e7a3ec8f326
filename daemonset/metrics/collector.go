// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sealane/sealane/daemonset/status"
)

// Collector is a prometheus.Collector of one node's metrics.
type Collector struct {
	report  func() status.Node
	metrics []metric
}

// New returns a Collector that calls report at each scrape, maybe from several
// goroutines at once.
func New(report func() status.Node) *Collector {
	return &Collector{report: report, metrics: all()}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		out <- m.desc()
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	n := c.report()
	for _, m := range c.metrics {
		m.send(n, out)
	}
}

func all() []metric {
	var out []metric
	for _, group := range [][]metric{nodeMetrics(), keyMetrics(), addressMetrics(), trafficMetrics(), peerMetrics(), enforcementMetrics()} {
		out = append(out, group...)
	}
	return out
}

func nodeMetrics() []metric {
	return []metric{
		{
			name: "sealane_build_info", help: "Always 1; the label tells the daemon's version.", labels: []string{"version"},
			samples: func(n status.Node) []sample { return []sample{*labelled(1, n.Version)} },
		},
		gauge("sealane_ready", "Whether the node serves pods (1) or something is missing still (0).",
			func(n status.Node) float64 { return truth(n.Ready) }),
		gauge("sealane_cluster_from_disk", "Whether the daemon has started without the API server and follows what it last saw of the cluster (1).",
			func(n status.Node) float64 { return truth(n.FromDisk) }),
		gauge("sealane_lane_plaintext", "Whether packets to other nodes travel unencrypted (1), which only --insecure-plaintext brings about.",
			func(n status.Node) float64 { return truth(n.Lane.Plaintext) }),
		{
			name: "sealane_lane_info", help: "Always 1; the labels tell what carries packets to other nodes.", labels: []string{"kind", "backend"},
			samples: func(n status.Node) []sample { return []sample{*labelled(1, n.Lane.Kind, string(n.Lane.Backend))} },
		},
		gauge("sealane_guarded_uplinks", "Devices that the leak guard watches.",
			func(n status.Node) float64 { return float64(len(n.Uplinks)) }),
	}
}

func keyMetrics() []metric {
	return []metric{
		moment("sealane_certificate_expiry_timestamp_seconds", "When the node's certificate ends, in Unix time.",
			func(n status.Node) time.Time { return n.Certificate.NotAfter }),
		moment("sealane_certificate_renewal_timestamp_seconds", "When the node asks for its next certificate, in Unix time.",
			func(n status.Node) time.Time { return n.Certificate.RenewAt }),
		moment("sealane_statement_expiry_timestamp_seconds", "When the node's newest key statement ends, in Unix time.",
			func(n status.Node) time.Time { return n.Statement.NotAfter }),
		moment("sealane_peers_certificate_expiry_timestamp_seconds", "When the first certificate of an accepted peer ends, in Unix time.", firstPeerExpiry),
		{
			name:    "sealane_continuity_broken_total",
			help:    "Accepted statements of known nodes whose certificate key the former one does not vouch for.",
			counter: true, samples: func(n status.Node) []sample { return []sample{{value: discontinuities(n)}} },
		},
		gauge("sealane_key_generation", "Generation of the node's own WireGuard key; 0: none.",
			func(n status.Node) float64 { return float64(n.Key.Generation) }),
		gauge("sealane_revocation_list_number", "Number of the revocation list that the node's lanes follow; 0: none.",
			func(n status.Node) float64 { return float64(n.Revocations.Number) }),
		gauge("sealane_node_revoked", "Whether this very node is revoked (1).",
			func(n status.Node) float64 { return truth(n.Revocations.Revoked != "") }),
		gauge("sealane_peers_revoked", "Nodes that have no lane because they are revoked.", revokedPeers),
		{
			name: "sealane_rotation_state_seconds", help: "How long the rotation of the node's key has been in the state it is in.", labels: []string{"state"},
			samples: func(n status.Node) []sample {
				if n.Rotation.State == "" {
					return nil
				}
				return []sample{*labelled(max(0, n.Time.Sub(n.Rotation.Since).Seconds()), n.Rotation.State)}
			},
		},
		gauge("sealane_rotation_waiting_peers", "Peers that have not moved to the node's new key yet.",
			func(n status.Node) float64 { return float64(len(n.Rotation.Waiting)) }),
		{
			name: "sealane_pairings_total", help: "Preshared keys agreed on with peers, by role (client or server).", labels: []string{"role"}, counter: true,
			samples: func(n status.Node) []sample { return pairings(n, true) },
		},
		{
			name: "sealane_pairing_failures_total", help: "Exchanges of preshared keys that failed, by role and reason.", labels: []string{"role", "reason"}, counter: true,
			samples: func(n status.Node) []sample { return pairings(n, false) },
		},
		{
			name:   "sealane_statements_refused_total",
			help:   "Statements of other nodes that were refused, by reason.",
			labels: []string{"reason"}, counter: true, samples: refused,
		},
	}
}

func firstPeerExpiry(n status.Node) time.Time {
	var first time.Time
	for _, p := range n.Peers {
		if end := p.Certificate.NotAfter; !end.IsZero() && (first.IsZero() || end.Before(first)) {
			first = end
		}
	}
	return first
}

func discontinuities(n status.Node) float64 {
	var sum uint64
	for _, d := range n.Discontinuities {
		sum += d.Count
	}
	return float64(sum)
}

// pairings gives the exchanges that led to a key, or the others.
func pairings(n status.Node, agreed bool) []sample {
	var out []sample
	for _, p := range n.Pairings {
		switch {
		case agreed && p.Result == "agreed":
			out = append(out, *labelled(float64(p.Count), p.Role))
		case !agreed && p.Result != "agreed":
			out = append(out, *labelled(float64(p.Count), p.Role, p.Result))
		}
	}
	return out
}

func revokedPeers(n status.Node) float64 {
	var sum float64
	for _, p := range n.Peers {
		sum += truth(p.State == status.Revoked)
	}
	return sum
}

// moment is a point in time; no sample while there is none.
func moment(name, help string, when func(status.Node) time.Time) metric {
	return metric{name: name, help: help, samples: func(n status.Node) []sample {
		if t := when(n); !t.IsZero() {
			return []sample{{value: float64(t.Unix())}}
		}
		return nil
	}}
}

// refused sums over nodes: their number is not bounded, that of the reasons is.
func refused(n status.Node) []sample {
	var reasons []string
	sums := map[string]float64{}
	for _, r := range n.Refused {
		if _, known := sums[r.Reason]; !known {
			reasons = append(reasons, r.Reason)
		}
		sums[r.Reason] += float64(r.Count)
	}
	var out []sample
	for _, reason := range reasons {
		out = append(out, *labelled(sums[reason], reason))
	}
	return out
}

func addressMetrics() []metric {
	return []metric{
		gauge("sealane_pods", "Pods on the node that have addresses.", func(n status.Node) float64 { return float64(n.Pods) }),
		gauge("sealane_queued_dels", "Ends of pods that could not be carried out and are tried again each minute.",
			func(n status.Node) float64 { return float64(n.QueuedDels) }),
		{
			name: "sealane_ipam_addresses", help: "Pod addresses of the node, by family and by whether a pod has them (state used or free).",
			labels: []string{"family", "state"},
			samples: func(n status.Node) []sample {
				var out []sample
				for _, a := range n.Addresses {
					free := a.Size - min(a.Used, a.Size)
					out = append(out, *labelled(float64(a.Used), a.Family, "used"), *labelled(float64(free), a.Family, "free"))
				}
				return out
			},
		},
	}
}

func trafficMetrics() []metric {
	drops := func(n status.Node) []status.Drop { return n.Drops }
	trials := func(n status.Node) []status.Drop { return n.Trials }
	paths := func(n status.Node) []status.Traffic { return n.Paths }
	return []metric{
		{
			name: "sealane_drops_packets_total", help: "Packets that the data path dropped, by reason.", labels: []string{"reason"}, counter: true,
			samples: each(drops, func(_ status.Node, d status.Drop) *sample { return labelled(float64(d.Packets), d.Reason) }),
		},
		{
			name: "sealane_drops_bytes_total", help: "Bytes of the packets that the data path dropped, by reason.", labels: []string{"reason"}, counter: true,
			samples: each(drops, func(_ status.Node, d status.Drop) *sample { return labelled(float64(d.Bytes), d.Reason) }),
		},
		{
			name: "sealane_policy_trial_packets_total", help: "Packets that began a flow, or went on with one after a change of policies, and that policies in dry run would have dropped, by reason.",
			labels: []string{"reason"}, counter: true,
			samples: each(trials, func(_ status.Node, d status.Drop) *sample { return labelled(float64(d.Packets), d.Reason) }),
		},
		{
			name: "sealane_paths_packets_total", help: "Packets of pods, by the way that they took through the node.", labels: []string{"path"}, counter: true,
			samples: each(paths, func(_ status.Node, p status.Traffic) *sample { return labelled(float64(p.Packets), p.Path) }),
		},
		{
			name: "sealane_paths_bytes_total", help: "Bytes of the packets of pods, by the way that they took through the node.", labels: []string{"path"}, counter: true,
			samples: each(paths, func(_ status.Node, p status.Traffic) *sample { return labelled(float64(p.Bytes), p.Path) }),
		},
	}
}

func peerMetrics() []metric {
	peers := func(n status.Node) []status.Peer { return n.Peers }
	byPeer := func(name, help string, value func(status.Node, status.Peer) *sample) metric {
		return metric{name: name, help: help, labels: []string{"peer"}, samples: each(peers, value)}
	}
	counter := func(m metric) metric { m.counter = true; return m }
	return []metric{
		byPeer("sealane_peer_connected", "Whether packets can go to the peer (1) or are refused (0).",
			func(_ status.Node, p status.Peer) *sample {
				return labelled(truth(p.State == status.Connected), p.Name)
			}),
		byPeer("sealane_peer_handshake_age_seconds", "Time since the last handshake with the peer. An idle lane makes none.", handshakeAge),
		counter(byPeer("sealane_peer_receive_bytes_total", "Bytes received from the peer through its lanes.",
			func(_ status.Node, p status.Peer) *sample { return labelled(float64(p.RxBytes), p.Name) })),
		counter(byPeer("sealane_peer_transmit_bytes_total", "Bytes sent to the peer through its lanes.",
			func(_ status.Node, p status.Peer) *sample { return labelled(float64(p.TxBytes), p.Name) })),
		byPeer("sealane_peer_statement_expiry_timestamp_seconds", "When the peer's key statement ends, in Unix time.",
			func(_ status.Node, p status.Peer) *sample {
				if p.StatementNotAfter.IsZero() {
					return nil
				}
				return labelled(float64(p.StatementNotAfter.Unix()), p.Name)
			}),
		byPeer("sealane_peer_grace", "Whether what vouches for the peer's key has ended and its lane lives on for the time of grace (1).",
			func(_ status.Node, p status.Peer) *sample { return labelled(truth(p.Grace), p.Name) }),
	}
}

func handshakeAge(n status.Node, p status.Peer) *sample {
	if p.LastHandshake.IsZero() {
		return nil
	}
	return labelled(max(0, n.Time.Sub(p.LastHandshake).Seconds()), p.Name)
}
