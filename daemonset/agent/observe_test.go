// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/network"
	"github.com/sealane/sealane/daemonset/observe"
	"github.com/sealane/sealane/daemonset/readiness"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/daemonset/trust"
	"github.com/sealane/sealane/overlay"
)

func TestLaneTo(t *testing.T) {
	d := &daemon{cfg: Config{Lane: overlay.VXLAN}}
	if l := d.laneTo(nil, "n2"); l != nil {
		t.Errorf("before the first pass: %+v", l)
	}
	v := &network.View{Peers: []trust.Result{{Node: kube.Node{Name: "n2", UID: "u2"}}}}
	if diff := cmp.Diff(&observe.Lane{Peer: "n2", Kind: "vxlan"}, d.laneTo(v, "n2")); diff != "" {
		t.Error(diff)
	}
	if l := d.laneTo(v, "n3"); l != nil {
		t.Errorf("to a stranger: %+v", l)
	}
	d.cfg.Lane = overlay.WireGuard
	if l := d.laneTo(v, "n2"); l == nil || !l.Encrypted || l.OwnGeneration != 0 || l.String() != "wireguard, no lane" {
		t.Errorf("without a rotator: %+v", l)
	}
}

// TestReadyz: a probe hears why the node is not ready, and a revoked node is not.
func TestReadyz(t *testing.T) {
	state := readiness.New(readiness.Keys)
	p := &pages{state: state, report: func() status.Node { return status.Node{} }, registry: prometheus.NewRegistry(), log: slog.New(slog.DiscardHandler)}
	get := func() (int, string) {
		w := httptest.NewRecorder()
		p.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		return w.Code, w.Body.String()
	}
	if code, body := get(); code != http.StatusServiceUnavailable || !strings.Contains(body, "keys: starting") {
		t.Errorf("at the start: %d %s", code, body)
	}
	state.Report(readiness.Keys, nil)
	if code, body := get(); code != http.StatusOK {
		t.Errorf("ready: %d %s", code, body)
	}
	state.SetRevoked(true)
	state.Report(readiness.Keys, errors.New("this node is revoked: sealane readmit self"))
	if code, body := get(); code != http.StatusServiceUnavailable || !strings.Contains(body, "sealane readmit self") {
		t.Errorf("revoked: %d %s", code, body)
	}
}
