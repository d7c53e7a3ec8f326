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

	"github.com/sealane/sealane/daemonset/kube/cluster"
)

// stuckAfter is how long a leader may show no sign of life before its liveness
// probe fails. It makes a pass at least once in maxPause.
const stuckAfter = 10 * time.Minute

// health answers the probes.
type health struct {
	clock func() time.Time

	mu      sync.Mutex // guards all below
	problem string     // why the controller is not ready; empty if it is
	leading bool
	passed  time.Time // the last sign of life of a leader
}

func newHealth(clock func() time.Time) *health {
	return &health{clock: clock, problem: "not connected to the api server yet"}
}

// report sets why the controller is not ready; nil means that it is.
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

// pass records a sign of life.
func (h *health) pass() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.passed = h.clock()
}

// ready returns why the controller is not ready, or nil if it is.
func (h *health) ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.problem != "" {
		return fmt.Errorf("not ready: %s", h.problem)
	}
	return nil
}

// alive returns why the controller should be restarted, or nil if it should not.
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

// pages returns the HTTP handler, which serves the same on every replica, whether
// it leads or not.
func pages(h *health, registry prometheus.Gatherer, record func() cluster.RevocationRecord) http.Handler {
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
		_, _ = w.Write(crl) // see page
	})
	return mux
}

// page returns the handler of a probe.
func page(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := check(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		// A failed write means that the client has gone away.
		_, _ = fmt.Fprintln(w, "ok")
	}
}
