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

// New returns a Collector that calls report at each scrape, possibly from several
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
			name: "sealane_build_info", help: "Always 1; the label is the daemon's version.", labels: []string{"version"},
			samples: func(n status.Node) []sample { return []sample{*labelled(1, n.Version)} },
		},
		gauge("sealane_ready", "1 if the node serves pods; 0 if it is not ready.",
			func(n status.Node) float64 { return truth(n.Ready) }),
		gauge("sealane_cluster_from_disk", "1 if the daemon started without the API server and works from the last known cluster state on disk.",
			func(n status.Node) float64 { return truth(n.FromDisk) }),
		gauge("sealane_lane_plaintext", "1 if packets to other nodes travel unencrypted, which only --insecure-plaintext allows.",
			func(n status.Node) float64 { return truth(n.Encapsulation.Plaintext) }),
		{
			name: "sealane_lane_info", help: "Always 1; the labels are the encapsulation (kind) and what carries it (backend: kernel or user-space).", labels: []string{"kind", "backend"},
			samples: func(n status.Node) []sample {
				return []sample{*labelled(1, n.Encapsulation.Kind, string(n.Encapsulation.Backend))}
			},
		},
		gauge("sealane_guarded_uplinks", "Number of devices that the leak guard watches.",
			func(n status.Node) float64 { return float64(len(n.Uplinks)) }),
	}
}

func keyMetrics() []metric {
	return []metric{
		moment("sealane_certificate_expiry_timestamp_seconds", "When the node's certificate expires, in Unix time.",
			func(n status.Node) time.Time { return n.Certificate.NotAfter }),
		moment("sealane_certificate_renewal_timestamp_seconds", "When the node will request its next certificate, in Unix time.",
			func(n status.Node) time.Time { return n.Certificate.RenewAt }),
		moment("sealane_statement_expiry_timestamp_seconds", "When the node's newest key statement expires, in Unix time.",
			func(n status.Node) time.Time { return n.Statement.NotAfter }),
		moment("sealane_peers_certificate_expiry_timestamp_seconds", "When the first of the accepted peers' certificates expires, in Unix time.", firstPeerExpiry),
		{
			name:    "sealane_continuity_broken_total",
			help:    "Continuity warnings: accepted statements whose certificate key the node's previous key does not vouch for.",
			counter: true, samples: func(n status.Node) []sample { return []sample{{value: total(n.ContinuityWarnings)}} },
		},
		gauge("sealane_key_generation", "Generation of the node's WireGuard key; 0 if it has none.",
			func(n status.Node) float64 { return float64(n.Key.Generation) }),
		gauge("sealane_revocation_list_number", "Number of the revocation list that the node enforces; 0 if it has none.",
			func(n status.Node) float64 { return float64(n.Revocations.Number) }),
		gauge("sealane_trust_bundle_refused", "1 if this node refuses the published trust bundle and keeps the one before.",
			func(n status.Node) float64 { return truth(n.BundleRefused != "") }),
		gauge("sealane_node_revoked", "1 if this node is revoked.",
			func(n status.Node) float64 { return truth(n.Revocations.Revoked != "") }),
		gauge("sealane_peers_revoked", "Number of peers that have no lane because they are revoked.", revokedPeers),
		{
			name: "sealane_rotation_state_seconds", help: "How long the rotation of the node's key has been in its current state.", labels: []string{"state"},
			samples: func(n status.Node) []sample {
				if n.Rotation.State == "" {
					return nil
				}
				return []sample{*labelled(max(0, n.Time.Sub(n.Rotation.Since).Seconds()), n.Rotation.State)}
			},
		},
		gauge("sealane_rotation_waiting_peers", "Number of peers that have not moved to the node's new key.",
			func(n status.Node) float64 { return float64(len(n.Rotation.Waiting)) }),
		{
			name: "sealane_pairings_total", help: "Preshared keys agreed on with peers, by this node's role (client or server).", labels: []string{"role"}, counter: true,
			samples: func(n status.Node) []sample { return pairings(n, true) },
		},
		{
			name: "sealane_pairing_failures_total", help: "Failed exchanges of preshared keys, by this node's role and the reason.", labels: []string{"role", "reason"}, counter: true,
			samples: func(n status.Node) []sample { return pairings(n, false) },
		},
		{
			name:   "sealane_statements_refused_total",
			help:   "Key statements of other nodes that this node refused, by reason.",
			labels: []string{"reason"}, counter: true, samples: refused,
		},
		{
			name:    "sealane_node_addresses_refused_total",
			help:    "Addresses in accepted statements that this node does not take for the other node's own.",
			counter: true, samples: func(n status.Node) []sample { return []sample{{value: total(n.RefusedAddresses)}} },
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

func total(all []status.Refusal) float64 {
	var sum uint64
	for _, r := range all {
		sum += r.Count
	}
	return float64(sum)
}

// pairings returns the exchanges that agreed on a key, or those that failed.
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

// moment is a point in time. It has no sample while the time is zero.
func moment(name, help string, when func(status.Node) time.Time) metric {
	return metric{name: name, help: help, samples: func(n status.Node) []sample {
		if t := when(n); !t.IsZero() {
			return []sample{{value: float64(t.Unix())}}
		}
		return nil
	}}
}

// refused sums over nodes, whose number has no bound; the reasons are a fixed list.
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
		gauge("sealane_pods", "Number of pods on the node that have an address.", func(n status.Node) float64 { return float64(n.Pods) }),
		gauge("sealane_queued_dels", "CNI DEL requests that have failed so far; the daemon retries them every minute.",
			func(n status.Node) float64 { return float64(n.QueuedDels) }),
		{
			name: "sealane_ipam_addresses", help: "Pod addresses of the node, by family and state (used or free).",
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
	dryRun := func(n status.Node) []status.Drop { return n.DryRunDrops }
	paths := func(n status.Node) []status.Traffic { return n.Paths }
	return []metric{
		{
			name: "sealane_drops_packets_total", help: "Packets dropped by the data path, by reason.", labels: []string{"reason"}, counter: true,
			samples: each(drops, func(_ status.Node, d status.Drop) *sample { return labelled(float64(d.Packets), d.Reason) }),
		},
		{
			name: "sealane_drops_bytes_total", help: "Bytes of packets dropped by the data path, by reason.", labels: []string{"reason"}, counter: true,
			samples: each(drops, func(_ status.Node, d status.Drop) *sample { return labelled(float64(d.Bytes), d.Reason) }),
		},
		{
			name: "sealane_policy_dry_run_packets_total", help: "Packets that policies in dry run would have dropped, by reason. Counts packets that start a flow, or continue one after policies changed.",
			labels: []string{"reason"}, counter: true,
			samples: each(dryRun, func(_ status.Node, d status.Drop) *sample { return labelled(float64(d.Packets), d.Reason) }),
		},
		{
			name: "sealane_paths_packets_total", help: "Packets of pods, by their path through the node.", labels: []string{"path"}, counter: true,
			samples: each(paths, func(_ status.Node, p status.Traffic) *sample { return labelled(float64(p.Packets), p.Path) }),
		},
		{
			name: "sealane_paths_bytes_total", help: "Bytes of pods' packets, by their path through the node.", labels: []string{"path"}, counter: true,
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
		byPeer("sealane_peer_connected", "1 if packets can reach the peer; 0 if this node refuses to send them.",
			func(_ status.Node, p status.Peer) *sample {
				return labelled(truth(p.State == status.Connected), p.Name)
			}),
		byPeer("sealane_peer_handshake_age_seconds", "Time since the last handshake with the peer, in seconds. An idle lane does not handshake.", handshakeAge),
		counter(byPeer("sealane_peer_receive_bytes_total", "Bytes received from the peer through its lane.",
			func(_ status.Node, p status.Peer) *sample { return labelled(float64(p.RxBytes), p.Name) })),
		counter(byPeer("sealane_peer_transmit_bytes_total", "Bytes sent to the peer through its lane.",
			func(_ status.Node, p status.Peer) *sample { return labelled(float64(p.TxBytes), p.Name) })),
		byPeer("sealane_peer_statement_expiry_timestamp_seconds", "When the peer's key statement expires, in Unix time.",
			func(_ status.Node, p status.Peer) *sample {
				if p.StatementNotAfter.IsZero() {
					return nil
				}
				return labelled(float64(p.StatementNotAfter.Unix()), p.Name)
			}),
		byPeer("sealane_peer_grace", "1 if the peer's certificate or statement has expired and its lane lives on in the grace period.",
			func(_ status.Node, p status.Peer) *sample { return labelled(truth(p.Grace), p.Name) }),
	}
}

func handshakeAge(n status.Node, p status.Peer) *sample {
	if p.LastHandshake.IsZero() {
		return nil
	}
	return labelled(max(0, n.Time.Sub(p.LastHandshake).Seconds()), p.Name)
}
