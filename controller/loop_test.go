// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sealane/sealane/controller/authority"
	"github.com/sealane/sealane/controller/controllertest"
	"github.com/sealane/sealane/controller/revocation"
	"github.com/sealane/sealane/controller/signer"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/ca/memorystore"
)

// newTestLoop returns the loop of a leader to which no node is revoked.
func newTestLoop(t *testing.T, w *controllertest.World) *loop {
	t.Helper()
	clock := func() time.Time { return w.Now }
	opened, err := ca.Open(t.Context(), ca.Config{
		TrustDomain: controllertest.TrustDomain, Store: memorystore.New(), RootStore: memorystore.New(), Clock: clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	log, none, health := slog.New(slog.DiscardHandler), revocation.NewState(), newHealth(clock)
	none.Decide(keymgr.RevocationList{})
	return &loop{
		requests: w, cluster: w, revoked: none,
		maintainer: &authority.Maintainer{
			CA: opened, Publisher: w, Mode: authority.ModeSelf, Metrics: metrics.authority, Log: log, Clock: clock,
		},
		signer: signer.New(signer.Config{
			Requests: w, CSRs: w, Live: w, Events: w, Issuer: opened, Revocations: none,
			Policy: approval.Policy{
				TrustDomain: controllertest.TrustDomain, Namespace: kube.DefaultNamespace,
				ServiceAccount: kube.AgentServiceAccount, MaxPerHour: 3,
			},
			Metrics: metrics.signer, Progress: health.pass, Log: log, Clock: clock,
		}),
		collector: &revocation.Collector{Client: w, State: none, Metrics: metrics.revocation, Log: log},
		health:    health, metrics: metrics, log: log,
	}
}

func TestRunRepeatsFailedPassesAndStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := controllertest.NewWorld(t)
		w.Now = time.Now()
		w.AddNode("n1", "u1", "10.244.1.0/24")
		name := w.Ask("n1", controllertest.NewKey(t))
		loop := newTestLoop(t, w)
		w.Set(nil, true)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); loop.run(ctx) }()
		synctest.Wait()
		if loop.health.ready() == nil || w.Writes != 0 {
			t.Errorf("ready before anything is known, or wrote %d times", w.Writes)
		}
		w.Set(controllertest.ErrAway, false)
		w.News <- struct{}{}
		synctest.Wait()
		if err := loop.health.ready(); err == nil || !strings.Contains(err.Error(), controllertest.ErrAway.Error()) {
			t.Errorf("while the api server is away: ready says %v", err)
		}
		w.Set(nil, false)
		time.Sleep(2 * maxPause) // of the bubble's clock
		synctest.Wait()
		if err := loop.health.ready(); err != nil {
			t.Error(err)
		}
		if len(w.Request(name).Certificate) == 0 {
			t.Error("the request was not answered after the api server came back")
		}
		cancel()
		<-done
	})
}

func TestRunServesWhatIsLeftAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := controllertest.NewWorld(t)
		w.Now = time.Now()
		w.AddNode("n1", "u1", "10.244.1.0/24")
		key := controllertest.NewKey(t)
		for range 3 {
			w.Ask("n1", key)
		}
		loop := newTestLoop(t, w)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		start := time.Now()
		go func() { defer close(done); loop.run(ctx) }()
		synctest.Wait()
		for _, r := range w.AllRequests { // there was no news, and no time has passed
			if r.Pending() {
				t.Errorf("request %s still waits after %v", r.Name, time.Since(start))
			}
		}
		cancel()
		<-done
	})
}
