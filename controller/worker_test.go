// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/ca"
)

var errAway = errors.New("api server is away")

// settle makes passes until nothing is written any more.
func settle(t *testing.T, w *world, worker *worker) {
	t.Helper()
	for range 10 {
		before := w.writes
		if err := worker.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		if w.writes == before {
			return
		}
	}
	t.Fatal("passes never came to rest")
}

func verify(t *testing.T, w *world, worker *worker, name string) keymgr.NodeCertificate {
	t.Helper()
	chain, err := keymgr.DecodeChain(w.request(name).Certificate)
	if err != nil {
		t.Fatalf("request %s: %v; verdict %+v", name, err, w.verdicts[name])
	}
	cert, err := keymgr.VerifyCertificate(chain, worker.authority.Bundle(), w.now)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestRequestIsApprovedAndSigned(t *testing.T) {
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	name := w.ask("n1", newKey(t))
	worker := newTestWorker(t, w)

	if err := worker.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !w.request(name).Approved {
		t.Error("signed without an approval")
	}
	cert := verify(t, w, worker, name)
	if cert.Node != (keymgr.NodeID{Name: "n1", UID: "u1"}) || len(cert.PodCIDRs) != 1 || cert.NotAfter.Sub(w.now).Round(time.Hour) != 24*time.Hour {
		t.Errorf("got certificate %+v", cert)
	}
	if len(w.events) != 1 || w.events[0].Reason != reasonIssued || w.events[0].Name != "n1" {
		t.Errorf("got events %+v", w.events)
	}
	if got := testutil.ToFloat64(worker.metrics.issued); got != 1 {
		t.Errorf("counted %v issued", got)
	}
	if !strings.Contains(string(w.bundle), "CERTIFICATE") {
		t.Errorf("bundle was not published: %q", w.bundle)
	}
}

// TestRefusals changes one fact of a good request. What Approve checks is tested
// with it; here it matters that each fact reaches it.
func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*world, *kube.Request)
		reason ca.Reason
		about  kube.ObjectKind
	}{
		{"another user", func(_ *world, r *kube.Request) { r.Username = "admin" }, ca.ReasonUsername, kube.KindNode},
		{"signer", func(_ *world, r *kube.Request) { r.Signer = "other/signer" }, ca.ReasonSignerName, kube.KindNode},
		{"unbound token", func(_ *world, r *kube.Request) { r.Extra = nil }, ca.ReasonExtra, kube.KindRequest},
		{"node-bound token", func(_ *world, r *kube.Request) { delete(r.Extra, ca.ExtraPodName) }, ca.ReasonExtra, kube.KindRequest},
		{"node gone", func(w *world, _ *kube.Request) { delete(w.nodes, "n1") }, ca.ReasonNode, kube.KindNode},
		{"node made anew", func(w *world, _ *kube.Request) { w.addNode("n1", "u9", "10.244.1.0/24") }, ca.ReasonNode, kube.KindNode},
		{"pod gone", func(w *world, _ *kube.Request) { delete(w.pods, "agent-n1") }, ca.ReasonPod, kube.KindNode},
		{"pod elsewhere", change(func(p *kube.Pod) { p.Node = "n2" }), ca.ReasonPod, kube.KindNode},
		{"pod made anew", change(func(p *kube.Pod) { p.UID = "x" }), ca.ReasonPod, kube.KindNode},
		{"pod of another account", change(func(p *kube.Pod) { p.ServiceAccount = "x" }), ca.ReasonPod, kube.KindNode},
		{"pod being deleted", change(func(p *kube.Pod) { p.Deleting = true }), ca.ReasonPod, kube.KindNode},
		{"pod of another set", change(func(p *kube.Pod) { p.ControllerUID = "x" }), ca.ReasonPod, kube.KindNode},
		{"pod of a job", change(func(p *kube.Pod) { p.ControllerKind = "Job" }), ca.ReasonPod, kube.KindNode},
		{"no daemonset", func(w *world, _ *kube.Request) { w.daemonSet = "" }, ca.ReasonPod, kube.KindNode},
		{"no request", func(_ *world, r *kube.Request) { r.CSR = []byte("x") }, ca.ReasonRequest, kube.KindNode},
		{"usages", func(_ *world, r *kube.Request) { r.Usages = []string{"cert sign"} }, ca.ReasonUsages, kube.KindNode},
		{"lifetime", func(_ *world, r *kube.Request) { r.Validity = 365 * 24 * time.Hour }, ca.ReasonExpiration, kube.KindNode},
		{"name of another node", func(w *world, _ *kube.Request) {
			w.addNode("n2", "u2", "10.244.2.0/24")
			other := w.request(w.ask("n2", newKey(t))).CSR
			w.requests = w.requests[:1]
			w.requests[0].CSR = other
		}, ca.ReasonName, kube.KindNode},
	} {
		for _, approved := range []bool{false, true} {
			t.Run(tc.name, func(t *testing.T) {
				w := newWorld(t)
				w.addNode("n1", "u1", "10.244.1.0/24")
				name := w.ask("n1", newKey(t))
				tc.change(w, &w.requests[0])
				w.request(name).Approved = approved
				worker := newTestWorker(t, w)
				settle(t, w, worker)

				r := w.request(name)
				if r.Denied == approved || r.Failed != approved || len(r.Certificate) != 0 {
					t.Errorf("approved by somebody %t: denied %t, failed %t, certificate %q", approved, r.Denied, r.Failed, r.Certificate)
				}
				if got := w.verdicts[name]; got.Reason != string(tc.reason) || got.Message == "" {
					t.Errorf("got verdict %+v, want %s", got, tc.reason)
				}
				if len(w.events) != 1 || w.events[0].Kind != tc.about || w.events[0].Reason != reasonDenied || w.events[0].Type != kube.EventWarning {
					t.Errorf("got events %+v, want one about a %s", w.events, tc.about)
				}
				if got := testutil.ToFloat64(worker.metrics.denied.WithLabelValues(string(tc.reason))); got != 1 {
					t.Errorf("counted %v refusals for %s", got, tc.reason)
				}
			})
		}
	}
}

func change(f func(*kube.Pod)) func(*world, *kube.Request) {
	return func(w *world, _ *kube.Request) {
		pod := w.pods["agent-n1"]
		f(&pod)
		w.pods["agent-n1"] = pod
	}
}

// slowDesk lets something happen after each decision.
type slowDesk struct {
	*world
	after func()
}

func (d slowDesk) ApproveRequest(ctx context.Context, r kube.Request, v kube.Verdict) error {
	defer d.after()
	return d.world.ApproveRequest(ctx, r, v)
}

func (d slowDesk) DenyRequest(ctx context.Context, r kube.Request, v kube.Verdict) error {
	defer d.after()
	return d.world.DenyRequest(ctx, r, v)
}

func (d slowDesk) AnswerRequest(ctx context.Context, r kube.Request, chain [][]byte) error {
	defer d.after()
	return d.world.AnswerRequest(ctx, r, chain)
}

func TestFactsThatChangeAfterTheApproval(t *testing.T) {
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	name := w.ask("n1", newKey(t))
	worker := newTestWorker(t, w)
	worker.signer.desk = slowDesk{w, func() { delete(w.pods, "agent-n1") }}
	if err := worker.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := w.request(name); !r.Approved || !r.Failed || len(r.Certificate) != 0 {
		t.Errorf("approved %t, failed %t, certificate %q; want a failure", r.Approved, r.Failed, r.Certificate)
	}
}

// TestApprovedBefore: by somebody else, or by a leader that got no further.
func TestApprovedBefore(t *testing.T) {
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	name := w.ask("n1", newKey(t))
	first := newTestWorker(t, w)
	first.signer.desk = slowDesk{w, func() { w.set(errAway, false) }}
	if err := first.pass(t.Context()); !errors.Is(err, errAway) {
		t.Fatalf("got error %v, want %v", err, errAway)
	}
	if r := w.request(name); !r.Approved || !r.Pending() {
		t.Fatalf("approved %t, pending %t", r.Approved, r.Pending())
	}
	w.set(nil, false)
	second := newTestWorker(t, w)
	settle(t, w, second)
	verify(t, w, second, name)
}

func TestUnknownFactsDecideNothing(t *testing.T) {
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	name := w.ask("n1", newKey(t))
	worker := newTestWorker(t, w)
	w.set(errAway, false)
	if err := worker.pass(t.Context()); !errors.Is(err, errAway) {
		t.Errorf("got error %v, want %v", err, errAway)
	}
	if r := w.request(name); r.Approved || r.Denied || r.Failed {
		t.Errorf("decided without facts: %+v", r)
	}
	w.set(nil, false)
	settle(t, w, worker)
	verify(t, w, worker, name)
}

func TestRateLimitOutlivesTheLeader(t *testing.T) {
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	key := newKey(t)
	for range 3 {
		name := w.ask("n1", key)
		worker := newTestWorker(t, w)
		worker.signer.issuer = newTestWorker(t, w).authority
		settle(t, w, worker)
		if len(w.request(name).Certificate) == 0 {
			t.Fatalf("request %s: %+v", name, w.verdicts[name])
		}
	}
	fourth := w.ask("n1", key)
	settle(t, w, newTestWorker(t, w)) // a new leader
	if got := w.verdicts[fourth].Reason; got != string(ca.ReasonRateLimit) {
		t.Errorf("fourth certificate within an hour: verdict %+v", w.verdicts[fourth])
	}
	w.now = w.now.Add(time.Hour + time.Minute)
	fifth := w.ask("n1", key)
	settle(t, w, newTestWorker(t, w))
	if len(w.request(fifth).Certificate) == 0 {
		t.Errorf("an hour later: verdict %+v", w.verdicts[fifth])
	}
}

func TestRateLimitDoesNotWaitForTheCache(t *testing.T) {
	h := newHistory()
	now := time.Now()
	for _, request := range []string{"a", "b"} {
		h.add("u1", request, now)
	}
	h.learn(nil, now) // the cache does not show them yet
	if got := len(h.times("u1", "c")); got != 2 {
		t.Errorf("got %d certificates, want 2", got)
	}
	if got := len(h.times("u1", "a")); got != 1 {
		t.Errorf("a second try counts its own first: got %d", got)
	}
	h.learn(nil, now.Add(window))
	if got := len(h.issued); got != 0 {
		t.Errorf("%d nodes are remembered after the window", got)
	}
}

func TestKeyBelongsToOneNode(t *testing.T) {
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	w.addNode("n2", "u2", "10.244.2.0/24")
	stolen := newKey(t)
	first := w.ask("n1", stolen)
	second := w.ask("n2", stolen) // in the same pass
	worker := newTestWorker(t, w)
	settle(t, w, worker)
	if verify(t, w, worker, first).Node.Name != "n1" {
		t.Error("the first node did not get its certificate")
	}
	if got := w.verdicts[second].Reason; got != string(ca.ReasonKeyOfOtherNode) {
		t.Errorf("the same key for another node: verdict %+v", w.verdicts[second])
	}

	// The record of requests is gone after an hour, the published one stays.
	w.publish("n1", w.request(first).Certificate)
	w.requests = nil
	third := w.ask("n2", stolen)
	settle(t, w, worker)
	if got := w.verdicts[third].Reason; got != string(ca.ReasonKeyOfOtherNode) {
		t.Errorf("a key that another node has published: verdict %+v", w.verdicts[third])
	}

	// The owner is gone for good.
	delete(w.nodes, "n1")
	fourth := w.ask("n2", stolen)
	settle(t, w, worker)
	if verify(t, w, worker, fourth).Node.Name != "n2" {
		t.Error("the key of a node that is gone is still taken")
	}
}

func TestForeignCertificateBlocksNoKey(t *testing.T) {
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	w.addNode("n2", "u2", "10.244.2.0/24")
	key := newKey(t)
	foreign := newTestWorker(t, w) // with a root of its own
	name := w.ask("n1", key)
	settle(t, w, foreign)
	w.publish("n1", w.request(name).Certificate)
	w.requests = nil

	name = w.ask("n2", key)
	worker := newTestWorker(t, w)
	settle(t, w, worker)
	verify(t, w, worker, name)
}

func TestCollect(t *testing.T) {
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	w.addNode("n2", "u2-new", "10.244.2.0/24")
	w.claims = map[string]string{"n1": "u1", "n2": "u2-old", "n3": "u3"}
	worker := newTestWorker(t, w)
	worker.collector.register.publish(keymgr.RevocationList{}, map[string]bool{"u1": true, "u2-old": true, "u3": true})
	settle(t, w, worker)
	if diff := cmp.Diff(map[string]string{"n1": "u1"}, w.claims); diff != "" {
		t.Errorf("nodekeys (-want +got):\n%s", diff)
	}
	if got := testutil.ToFloat64(worker.metrics.collected); got != 2 {
		t.Errorf("counted %v", got)
	}
}

func TestCollectBelievesTheAPIServerNotTheSnapshot(t *testing.T) {
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	w.claims = map[string]string{"n1": "u1"}
	c := newTestWorker(t, w).collector
	c.register.publish(keymgr.RevocationList{}, map[string]bool{"u1": true})
	late := kube.Snapshot{Claims: map[string]string{"n1": "u1"}} // without the node
	if err := c.collect(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	if len(w.claims) != 1 {
		t.Error("a live node's nodekey was removed")
	}
	w.set(errAway, false)
	if err := c.collect(t.Context(), late); !errors.Is(err, errAway) {
		t.Errorf("got error %v", err)
	}
}

func TestBundleIsRestored(t *testing.T) {
	w := newWorld(t)
	worker := newTestWorker(t, w)
	settle(t, w, worker)
	good := slices.Clone(w.bundle)
	w.bundle = []byte("changed by somebody")
	settle(t, w, worker)
	if string(w.bundle) != string(good) {
		t.Errorf("bundle is %q", w.bundle)
	}
}

func TestIntermediateIsRenewedBeforeItLimitsCertificates(t *testing.T) {
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	worker := newTestWorker(t, w)
	settle(t, w, worker)
	bundle := string(worker.authority.Bundle())
	start := w.now
	for w.now.Sub(start) < 2*ca.DefaultIntermediateLifetime {
		w.now = w.now.Add(7 * 24 * time.Hour)
		w.requests = nil
		name := w.ask("n1", newKey(t))
		w.request(name).Validity = 7 * 24 * time.Hour
		settle(t, w, worker)
		if cert := verify(t, w, worker, name); cert.NotAfter.Sub(w.now) < 7*24*time.Hour-time.Second {
			t.Fatalf("after %v a certificate for 7 days ends in %v", w.now.Sub(start), cert.NotAfter.Sub(w.now))
		}
	}
	if string(worker.authority.Bundle()) != bundle {
		t.Error("renewing the intermediate changed the roots")
	}
	if got := testutil.ToFloat64(worker.metrics.notAfter.WithLabelValues("intermediate")); got < float64(w.now.Unix()) {
		t.Errorf("metric says that the intermediate ended at %v", got)
	}
}

func TestRunRepeatsFailedPassesAndStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.now = time.Now()
		w.addNode("n1", "u1", "10.244.1.0/24")
		name := w.ask("n1", newKey(t))
		worker := newTestWorker(t, w)
		w.set(nil, true)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); worker.run(ctx) }()
		synctest.Wait()
		if worker.health.ready() == nil || w.writes != 0 {
			t.Errorf("ready before anything is known, or wrote %d times", w.writes)
		}
		w.set(errAway, false)
		w.changed <- struct{}{}
		synctest.Wait()
		if err := worker.health.ready(); err == nil || !strings.Contains(err.Error(), errAway.Error()) {
			t.Errorf("while the api server is away: ready says %v", err)
		}
		w.set(nil, false)
		time.Sleep(2 * maxPause) // of the bubble's clock
		synctest.Wait()
		if err := worker.health.ready(); err != nil {
			t.Error(err)
		}
		if len(w.request(name).Certificate) == 0 {
			t.Error("the request was not answered after the api server came back")
		}
		cancel()
		<-done
	})
}
