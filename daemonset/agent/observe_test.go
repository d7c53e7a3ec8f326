// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
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

// seen is a snapshot of the API server.
type seen cluster.Snapshot

func (s seen) Snapshot() (cluster.Snapshot, bool) { return cluster.Snapshot(s), true }

// TestReaders: nodes, as soon as the API server has named them, and who is configured.
func TestReaders(t *testing.T) {
	d := &daemon{network: network.New(network.Config{}), cfg: Config{MetricsAllowFrom: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}}
	may := d.readers(seen{Nodes: []kube.Node{{Name: "n2", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.2")}}}})
	for address, want := range map[string]bool{"192.0.2.2": true, "203.0.113.7": true, "192.0.2.3": false, "10.244.1.5": false} {
		if got := may(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s may read: %t", address, got)
		}
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
	for _, page := range []string{"/metrics", status.Path} { // the request is not from here
		w := httptest.NewRecorder()
		p.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, page, nil))
		if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "metrics.allowFrom") {
			t.Errorf("a stranger reads %s: %d %s", page, w.Code, w.Body)
		}
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
