// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/readiness"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/internal/httpserver"
)

// pages serves what operators and probes read. Nothing can be changed, and no key is in
// it; but who talks to whom, how much and by which address is not for pods.
type pages struct {
	state    *readiness.State
	report   func() status.Node
	registry prometheus.Gatherer
	known    func(netip.Addr) bool // may read reports and metrics; this host always may
	log      *slog.Logger
}

// remedy says how somebody gets to read what is refused.
const remedy = "reports and metrics are for nodes of the cluster; allow other readers with --metrics-allow-from (chart value metrics.allowFrom)"

func (p *pages) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", httpserver.OnlyFor(p.known, remedy, promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{})))
	mux.Handle("GET "+status.Path, httpserver.OnlyFor(p.known, remedy, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(p.report()); err != nil {
			p.log.Debug("status not sent", "error", err)
		}
	})))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !p.state.Ready() {
			http.Error(w, strings.Join(p.state.Reasons(), "\n"), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// serve answers until ctx ends.
func (p *pages) serve(ctx context.Context, address string) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen for --metrics-address=%s: %w", address, err)
	}
	return httpserver.Server{Handler: p.handler(), Known: p.known}.Serve(ctx, l)
}

// readers returns who may read reports and metrics: who is configured, and the addresses
// that the cluster's nodes have in a snapshot, or in the last pass if that came from disk.
func (d *daemon) readers(watch interface {
	Snapshot() (cluster.Snapshot, bool)
},
) func(netip.Addr) bool {
	nodes := httpserver.Cached(time.Now, freshness, func() map[netip.Addr]bool {
		all := map[netip.Addr]bool{}
		snap, _ := watch.Snapshot()
		known := snap.Nodes
		if v := d.network.View(); v != nil {
			known = append(slices.Clone(known), v.Self)
			for _, p := range v.Peers {
				known = append(known, p.Node)
			}
		}
		for _, n := range known {
			for _, a := range n.Addresses {
				all[a] = true
			}
		}
		return all
	})
	return func(a netip.Addr) bool {
		return slices.ContainsFunc(d.cfg.MetricsAllowFrom, func(p netip.Prefix) bool { return p.Contains(a) }) || nodes()[a]
	}
}

// freshness is how old a report may be that somebody gets.
const freshness = time.Second

// gathered is the outcome of gathering metrics.
type gathered struct {
	families []*dto.MetricFamily
	err      error
}

// seldom gathers metrics no more often than there is something new to see.
func seldom(g prometheus.Gatherer) prometheus.Gatherer {
	get := httpserver.Cached(time.Now, freshness, func() gathered {
		families, err := g.Gather()
		return gathered{families, err}
	})
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		last := get()
		return last.families, last.err
	})
}
