// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sealane/sealane/controller/controllertest"
	"github.com/sealane/sealane/daemonset/kube/cluster"
)

func TestPages(t *testing.T) {
	now := time.Now()
	h := newHealth(func() time.Time { return now })
	registry := prometheus.NewRegistry()
	m, err := newMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	w.Request(w.Ask("n1", controllertest.NewKey(t))).Username = "admin"
	l := newTestLoop(t, w)
	l.signer.Metrics = m.signer
	w.Settle(l.pass)
	var record cluster.RevocationRecord
	handler := pages(h, registry, func() cluster.RevocationRecord { return record })
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	expect := func(path string, code int, text string) {
		t.Helper()
		if gotCode, got := get(path); gotCode != code || !strings.Contains(got, text) {
			t.Errorf("%s: got %d %q, want %d with %q", path, gotCode, got, code, text)
		}
	}
	expect("/readyz", http.StatusServiceUnavailable, "not connected")
	expect("/healthz", http.StatusOK, "ok")
	h.report(nil)
	expect("/readyz", http.StatusOK, "ok")
	h.report(errors.New("no root"))
	expect("/readyz", http.StatusServiceUnavailable, "no root")

	now = now.Add(2 * stuckAfter)
	expect("/healthz", http.StatusOK, "ok") // one that stands by has nothing to do
	h.setLeading(true)
	now = now.Add(stuckAfter + time.Second)
	expect("/healthz", http.StatusServiceUnavailable, "stuck")
	h.pass()
	expect("/healthz", http.StatusOK, "ok")
	expect("/metrics", http.StatusOK, `sealane_controller_requests_denied_total{reason="Username"} 1`)

	expect("/crl", http.StatusServiceUnavailable, "no CRL yet")
	record.CRL = []byte("DER")
	expect("/crl", http.StatusOK, "DER") // led or not
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) != 0 {
		t.Errorf("metrics: %v, error %v", problems, err)
	}
}
