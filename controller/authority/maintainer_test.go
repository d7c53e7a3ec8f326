// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package authority

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sealane/sealane/controller/controllertest"
	"github.com/sealane/sealane/controller/signer"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/ca/memorystore"
)

// worker is a maintainer with a signer that issues from the same CA.
type worker struct {
	*Maintainer
	authority *ca.Authority
	signer    *signer.Signer
}

func newTestWorker(t *testing.T, w *controllertest.World) *worker {
	t.Helper()
	clock := func() time.Time { return w.Now }
	opened, err := ca.Open(t.Context(), ca.Config{
		TrustDomain: controllertest.TrustDomain, Store: memorystore.New(), RootStore: memorystore.New(), Clock: clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	return &worker{
		authority:  opened,
		Maintainer: &Maintainer{CA: opened, Publisher: w, Mode: ModeSelf, Metrics: NewMetrics(), Log: log, Clock: clock},
		signer: signer.New(signer.Config{
			Requests: w, CSRs: w, Live: w, Events: w, Issuer: opened, Revocations: noneRevoked{},
			Policy: approval.Policy{
				TrustDomain: controllertest.TrustDomain, Namespace: kube.DefaultNamespace,
				ServiceAccount: kube.AgentServiceAccount, MaxPerHour: 3,
			},
			Metrics: signer.NewMetrics(), Progress: func() {}, Log: log, Clock: clock,
		}),
	}
}

// noneRevoked is the list of a cluster without revoked nodes.
type noneRevoked struct{}

func (noneRevoked) Current() (keymgr.RevocationList, bool) { return keymgr.RevocationList{}, true }

// pass does what the leader does in a pass.
func (w *worker) pass(ctx context.Context) error {
	snapshot, _ := w.Publisher.(*controllertest.World).Snapshot()
	maintained := w.Pass(ctx, snapshot)
	_, err := w.signer.Pass(ctx, snapshot)
	return errors.Join(maintained, err)
}

func TestBundleIsRestored(t *testing.T) {
	w := controllertest.NewWorld(t)
	worker := newTestWorker(t, w)
	w.Settle(worker.pass)
	good := slices.Clone(w.Bundle)
	w.Bundle = []byte("changed by somebody")
	w.Settle(worker.pass)
	if string(w.Bundle) != string(good) {
		t.Errorf("bundle is %q", w.Bundle)
	}
}

func TestIntermediateIsRenewedBeforeItLimitsCertificates(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	worker := newTestWorker(t, w)
	w.Settle(worker.pass)
	bundle := string(worker.authority.Bundle())
	start := w.Now
	for w.Now.Sub(start) < 2*ca.DefaultIntermediateLifetime {
		w.Now = w.Now.Add(7 * 24 * time.Hour)
		w.AllRequests = nil
		name := w.Ask("n1", controllertest.NewKey(t))
		w.Request(name).Validity = 7 * 24 * time.Hour
		w.Settle(worker.pass)
		if cert := w.Certificate(name, worker.authority.Bundle()); cert.NotAfter.Sub(w.Now) < 7*24*time.Hour-time.Second {
			t.Fatalf("after %v a certificate for 7 days ends in %v", w.Now.Sub(start), cert.NotAfter.Sub(w.Now))
		}
	}
	if string(worker.authority.Bundle()) != bundle {
		t.Error("renewing the intermediate changed the roots")
	}
	if got := testutil.ToFloat64(worker.Metrics.notAfter.WithLabelValues("intermediate")); got < float64(w.Now.Unix()) {
		t.Errorf("metric says that the intermediate ended at %v", got)
	}
}

// A NodeKey that speaks for a node that is gone, or for its predecessor, holds
// nothing up.
func TestFleet(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	w.AddNode("n2", "u2", "10.244.2.0/24")
	w.AddNode("joining", "u3", "10.244.3.0/24")
	w.Claims = map[string]string{"n1": "u1", "n2": "former", "gone": "u9"}
	w.Reports = map[string]string{"n1": "aa", "n2": "bb", "gone": "cc"}
	s, _ := w.Snapshot()
	f := fleet(s)
	if len(f.Nodes) != 1 || f.Nodes[0].Name != "n1" || f.Nodes[0].BundleHash != "aa" {
		t.Errorf("fleet %+v", f)
	}
}

func TestRequestForARoot(t *testing.T) {
	w := controllertest.NewWorld(t)
	worker := newTestWorker(t, w)
	if got := worker.requestedAt("2026-01-02T03:04:05Z"); got.IsZero() {
		t.Error("a time was not read")
	}
	for _, text := range []string{"", "now", "now"} {
		if got := worker.requestedAt(text); !got.IsZero() {
			t.Errorf("%q is %v", text, got)
		}
	}
}
