// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sealane/sealane/daemonset/kube"
)

// stuckAfter is how long a leader's pass may take before the process is taken
// for dead. Passes come at least once in maxPause.
const stuckAfter = 10 * time.Minute

// health is what probes ask for.
type health struct {
	clock func() time.Time

	mu      sync.Mutex // guards what follows
	problem string     // why it is not ready, empty if it is
	leading bool
	passed  time.Time // last sign of life of a leader
}

func newHealth(clock func() time.Time) *health {
	return &health{clock: clock, problem: "not connected to the api server yet"}
}

// report sets what is in the way of working; nil means nothing is.
func (h *health) report(problem error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.problem = ""
	if problem != nil {
		h.problem = problem.Error()
	}
}

func (h *health) setLeading(leading bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leading, h.passed = leading, h.clock()
}

func (h *health) pass() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.passed = h.clock()
}

// ready returns why the controller is not ready, nil if it is.
func (h *health) ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.problem != "" {
		return fmt.Errorf("not ready: %s", h.problem)
	}
	return nil
}

// alive returns why the controller should be restarted, nil if it should not.
func (h *health) alive() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if silent := h.clock().Sub(h.passed); h.leading && silent > stuckAfter {
		return fmt.Errorf("leader has been stuck for %v", silent.Round(time.Second))
	}
	return nil
}

// crlType is the media type of a CRL in DER (RFC 2585, 4.2).
const crlType = "application/pkix-crl"

// pages serves the same on every replica, whether it leads or not.
func pages(h *health, registry prometheus.Gatherer, record func() kube.RevocationRecord) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", page(h.alive))
	mux.HandleFunc("GET /readyz", page(h.ready))
	mux.HandleFunc("GET /crl", func(w http.ResponseWriter, _ *http.Request) {
		crl := record().CRL
		if len(crl) == 0 {
			http.Error(w, "no CRL yet", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", crlType)
		_, _ = w.Write(crl) // as below
	})
	return mux
}

// page answers a probe.
func page(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := check(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		// A client that has gone away need not be told.
		_, _ = fmt.Fprintln(w, "ok")
	}
}
