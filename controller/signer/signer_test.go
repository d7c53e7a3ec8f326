// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package signer

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sealane/sealane/controller/authority"
	"github.com/sealane/sealane/controller/controllertest"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/ca/memorystore"
)

// worker is a signer with the CA that it issues from and what publishes its roots.
type worker struct {
	*Signer
	authority  *ca.Authority
	maintainer *authority.Maintainer
	again      time.Duration
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
		authority: opened,
		maintainer: &authority.Maintainer{
			CA: opened, Publisher: w, Mode: authority.ModeSelf, Metrics: authority.NewMetrics(), Log: log, Clock: clock,
		},
		Signer: New(Config{
			Requests: w, CSRs: w, Live: w, Events: w, Issuer: opened, Revocations: noneRevoked{},
			Policy: approval.Policy{
				TrustDomain: controllertest.TrustDomain, Namespace: kube.DefaultNamespace,
				ServiceAccount: kube.AgentServiceAccount, MaxPerHour: 3,
			},
			Metrics: NewMetrics(), Progress: func() {}, Log: log, Clock: clock,
		}),
	}
}

// noneRevoked is the list of a cluster without revoked nodes.
type noneRevoked struct{}

func (noneRevoked) Current() (keymgr.RevocationList, bool) { return keymgr.RevocationList{}, true }

// pass does what the leader does in a pass.
func (w *worker) pass(ctx context.Context) error {
	snapshot, _ := w.Requests.(interface {
		Snapshot() (cluster.Snapshot, bool)
	}).Snapshot()
	maintained := w.maintainer.Pass(ctx, snapshot)
	var err error
	w.again, err = w.Pass(ctx, snapshot)
	return errors.Join(maintained, err)
}

func TestRequestIsApprovedAndSigned(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	name := w.Ask("n1", controllertest.NewKey(t))
	worker := newTestWorker(t, w)

	if err := worker.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !w.Request(name).Approved {
		t.Error("signed without an approval")
	}
	cert := w.Certificate(name, worker.authority.Bundle())
	if cert.Node != (keymgr.NodeID{Name: "n1", UID: "u1"}) || len(cert.PodCIDRs) != 1 || cert.NotAfter.Sub(w.Now).Round(time.Hour) != 24*time.Hour {
		t.Errorf("got certificate %+v", cert)
	}
	if len(w.Events) != 1 || w.Events[0].Reason != reasonIssued || w.Events[0].Name != "n1" {
		t.Errorf("got events %+v", w.Events)
	}
	if got := testutil.ToFloat64(worker.Metrics.issued); got != 1 {
		t.Errorf("counted %v issued", got)
	}
	if !strings.Contains(string(w.Bundle), "CERTIFICATE") {
		t.Errorf("bundle was not published: %q", w.Bundle)
	}
}

// TestRefusals changes one fact of a good request. What Approve checks is tested
// with it; here it matters that each fact reaches it.
func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*controllertest.World, *kube.Request)
		reason approval.Reason
		about  kube.ObjectKind
	}{
		{"another user", func(_ *controllertest.World, r *kube.Request) { r.Username = "admin" }, approval.ReasonUsername, kube.KindNode},
		{"signer", func(_ *controllertest.World, r *kube.Request) { r.Signer = "other/signer" }, approval.ReasonSignerName, kube.KindNode},
		{"unbound token", func(_ *controllertest.World, r *kube.Request) { r.Extra = nil }, approval.ReasonExtra, kube.KindRequest},
		{"node-bound token", func(_ *controllertest.World, r *kube.Request) { delete(r.Extra, approval.ExtraPodName) }, approval.ReasonExtra, kube.KindRequest},
		{"node gone", func(w *controllertest.World, _ *kube.Request) { delete(w.Nodes, "n1") }, approval.ReasonNode, kube.KindNode},
		{"node created again", func(w *controllertest.World, _ *kube.Request) { w.AddNode("n1", "u9", "10.244.1.0/24") }, approval.ReasonNode, kube.KindNode},
		{"pod gone", func(w *controllertest.World, _ *kube.Request) { delete(w.Pods, "agent-n1") }, approval.ReasonPod, kube.KindNode},
		{"pod elsewhere", change(func(p *kube.Pod) { p.Node = "n2" }), approval.ReasonPod, kube.KindNode},
		{"pod created again", change(func(p *kube.Pod) { p.UID = "x" }), approval.ReasonPod, kube.KindNode},
		{"pod of another account", change(func(p *kube.Pod) { p.ServiceAccount = "x" }), approval.ReasonPod, kube.KindNode},
		{"pod being deleted", change(func(p *kube.Pod) { p.Deleting = true }), approval.ReasonPod, kube.KindNode},
		{"pod of another set", change(func(p *kube.Pod) { p.ControllerUID = "x" }), approval.ReasonPod, kube.KindNode},
		{"pod of a job", change(func(p *kube.Pod) { p.ControllerKind = "Job" }), approval.ReasonPod, kube.KindNode},
		{"no daemonset", func(w *controllertest.World, _ *kube.Request) { w.DaemonSet = "" }, approval.ReasonPod, kube.KindNode},
		{"no request", func(_ *controllertest.World, r *kube.Request) { r.CSR = []byte("x") }, approval.ReasonRequest, kube.KindNode},
		{"usages", func(_ *controllertest.World, r *kube.Request) { r.Usages = []string{"cert sign"} }, approval.ReasonUsages, kube.KindNode},
		{"lifetime", func(_ *controllertest.World, r *kube.Request) { r.Validity = 365 * 24 * time.Hour }, approval.ReasonExpiration, kube.KindNode},
		{"name of another node", func(w *controllertest.World, _ *kube.Request) {
			w.AddNode("n2", "u2", "10.244.2.0/24")
			other := w.Request(w.Ask("n2", controllertest.NewKey(t))).CSR
			w.AllRequests = w.AllRequests[:1]
			w.AllRequests[0].CSR = other
		}, approval.ReasonName, kube.KindNode},
	} {
		for _, approved := range []bool{false, true} {
			t.Run(tc.name, func(t *testing.T) {
				w := controllertest.NewWorld(t)
				w.AddNode("n1", "u1", "10.244.1.0/24")
				name := w.Ask("n1", controllertest.NewKey(t))
				tc.change(w, &w.AllRequests[0])
				w.Request(name).Approved = approved
				worker := newTestWorker(t, w)
				w.Settle(worker.pass)

				r := w.Request(name)
				if r.Denied == approved || r.Failed != approved || len(r.Certificate) != 0 {
					t.Errorf("approved by somebody %t: denied %t, failed %t, certificate %q", approved, r.Denied, r.Failed, r.Certificate)
				}
				if got := w.Verdicts[name]; got.Reason != string(tc.reason) || got.Message == "" {
					t.Errorf("got verdict %+v, want %s", got, tc.reason)
				}
				if len(w.Events) != 1 || w.Events[0].Kind != tc.about || w.Events[0].Reason != reasonDenied || w.Events[0].Type != kube.EventWarning {
					t.Errorf("got events %+v, want one about a %s", w.Events, tc.about)
				}
				if got := testutil.ToFloat64(worker.Metrics.denied.WithLabelValues(string(tc.reason))); got != 1 {
					t.Errorf("counted %v refusals for %s", got, tc.reason)
				}
			})
		}
	}
}

func change(f func(*kube.Pod)) func(*controllertest.World, *kube.Request) {
	return func(w *controllertest.World, _ *kube.Request) {
		pod := w.Pods["agent-n1"]
		f(&pod)
		w.Pods["agent-n1"] = pod
	}
}

// slowCSRs lets something happen after each decision.
type slowCSRs struct {
	*controllertest.World
	after func()
}

func (d slowCSRs) ApproveRequest(ctx context.Context, r kube.Request, v kube.Verdict) error {
	defer d.after()
	return d.World.ApproveRequest(ctx, r, v)
}

func (d slowCSRs) DenyRequest(ctx context.Context, r kube.Request, v kube.Verdict) error {
	defer d.after()
	return d.World.DenyRequest(ctx, r, v)
}

func (d slowCSRs) AnswerRequest(ctx context.Context, r kube.Request, chain [][]byte) error {
	defer d.after()
	return d.World.AnswerRequest(ctx, r, chain)
}

// TestAddressesOfOthersAreLeftOut: the signer gathers who has which address. n2 is older
// than n1, whose certificate names its address; the other is the API server's.
func TestAddressesOfOthersAreLeftOut(t *testing.T) {
	w := controllertest.NewWorld(t)
	taken, server, own := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("192.0.2.2")
	w.APIServer = []netip.Addr{server}
	add := func(name string, age time.Duration, addrs ...netip.Addr) {
		w.AddNode(name, "u-"+name, "10.244."+strings.TrimPrefix(name, "n")+".0/24")
		n := w.Nodes[name]
		n.Addresses, n.Created, n.Ready = addrs, w.Now.Add(-age), true
		w.Nodes[name] = n
	}
	add("n1", time.Hour, taken)
	worker := newTestWorker(t, w)
	first := w.Ask("n1", controllertest.NewKey(t))
	w.Settle(worker.pass)
	w.Publish("n1", w.Request(first).Certificate)
	add("n2", 2*time.Hour, own, taken, server)
	second := w.Ask("n2", controllertest.NewKey(t))
	w.Settle(worker.pass)
	if got := w.Certificate(first, w.Bundle).Addresses; !slices.Equal(got, []netip.Addr{taken}) {
		t.Errorf("n1 has %v", got)
	}
	if got := w.Certificate(second, w.Bundle).Addresses; !slices.Equal(got, []netip.Addr{own}) {
		t.Errorf("n2 has %v", got)
	}
	last := w.Events[len(w.Events)-1]
	if last.Reason != reasonAddress || last.Name != "n2" || !strings.Contains(last.Message, taken.String()) || !strings.Contains(last.Message, server.String()) {
		t.Errorf("told %+v", last)
	}
	if got := testutil.ToFloat64(worker.Metrics.addresses); got != 2 {
		t.Errorf("counted %v", got)
	}

	// A node that is revoked keeps nothing from others.
	worker.Revocations = blocked{"u-n1"}
	w.Now = w.Now.Add(time.Minute)
	third := w.Ask("n2", controllertest.NewKey(t))
	w.Settle(worker.pass)
	if got := w.Certificate(third, w.Bundle).Addresses; !slices.Equal(got, []netip.Addr{own, taken}) {
		t.Errorf("n2 has %v", got)
	}
}

// blocked is the list of a cluster in which one node is revoked.
type blocked struct{ uid string }

func (b blocked) Current() (keymgr.RevocationList, bool) {
	return keymgr.RevocationList{Nodes: []keymgr.RevokedNode{{UID: b.uid, Blocked: true}}}, true
}

// TestPodRangesOutsideOfTheCluster get no certificate.
func TestPodRangesOutsideOfTheCluster(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "198.51.96.0/19")
	worker := newTestWorker(t, w)
	worker.Policy.Rules.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
	name := w.Ask("n1", controllertest.NewKey(t))
	w.Settle(worker.pass)
	if r := w.Request(name); !r.Denied || w.Verdicts[name].Reason != string(approval.ReasonPodRanges) {
		t.Errorf("denied %t, %+v", r.Denied, w.Verdicts[name])
	}
}

func TestFactsThatChangeAfterTheApproval(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	name := w.Ask("n1", controllertest.NewKey(t))
	worker := newTestWorker(t, w)
	worker.CSRs = slowCSRs{w, func() { delete(w.Pods, "agent-n1") }}
	if err := worker.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := w.Request(name); !r.Approved || !r.Failed || len(r.Certificate) != 0 {
		t.Errorf("approved %t, failed %t, certificate %q; want a failure", r.Approved, r.Failed, r.Certificate)
	}
}

// TestApprovedBefore: by somebody else, or by a leader that got no further.
func TestApprovedBefore(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	name := w.Ask("n1", controllertest.NewKey(t))
	first := newTestWorker(t, w)
	first.CSRs = slowCSRs{w, func() { w.Set(controllertest.ErrAway, false) }}
	if err := first.pass(t.Context()); !errors.Is(err, controllertest.ErrAway) {
		t.Fatalf("got error %v, want %v", err, controllertest.ErrAway)
	}
	if r := w.Request(name); !r.Approved || !r.Pending() {
		t.Fatalf("approved %t, pending %t", r.Approved, r.Pending())
	}
	w.Set(nil, false)
	second := newTestWorker(t, w)
	w.Settle(second.pass)
	w.Certificate(name, second.authority.Bundle())
}

func TestUnknownFactsDecideNothing(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	name := w.Ask("n1", controllertest.NewKey(t))
	worker := newTestWorker(t, w)
	w.Set(controllertest.ErrAway, false)
	if err := worker.pass(t.Context()); !errors.Is(err, controllertest.ErrAway) {
		t.Errorf("got error %v, want %v", err, controllertest.ErrAway)
	}
	if r := w.Request(name); r.Approved || r.Denied || r.Failed {
		t.Errorf("decided without facts: %+v", r)
	}
	w.Set(nil, false)
	w.Settle(worker.pass)
	w.Certificate(name, worker.authority.Bundle())
}

func TestRateLimitOutlivesTheLeader(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	key := controllertest.NewKey(t)
	for range 3 {
		name := w.Ask("n1", key)
		worker := newTestWorker(t, w)
		worker.Issuer = newTestWorker(t, w).authority
		w.Settle(worker.pass)
		if len(w.Request(name).Certificate) == 0 {
			t.Fatalf("request %s: %+v", name, w.Verdicts[name])
		}
	}
	fourth := w.Ask("n1", key)
	w.Settle(newTestWorker(t, w).pass) // a new leader
	if got := w.Verdicts[fourth].Reason; got != string(approval.ReasonRateLimit) {
		t.Errorf("fourth certificate within an hour: verdict %+v", w.Verdicts[fourth])
	}
	w.Now = w.Now.Add(time.Hour + time.Minute)
	fifth := w.Ask("n1", key)
	w.Settle(newTestWorker(t, w).pass)
	if len(w.Request(fifth).Certificate) == 0 {
		t.Errorf("an hour later: verdict %+v", w.Verdicts[fifth])
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
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	w.AddNode("n2", "u2", "10.244.2.0/24")
	stolen := controllertest.NewKey(t)
	first := w.Ask("n1", stolen)
	second := w.Ask("n2", stolen) // in the same pass
	worker := newTestWorker(t, w)
	w.Settle(worker.pass)
	if w.Certificate(first, worker.authority.Bundle()).Node.Name != "n1" {
		t.Error("the first node did not get its certificate")
	}
	if got := w.Verdicts[second].Reason; got != string(approval.ReasonKeyOfOtherNode) {
		t.Errorf("the same key for another node: verdict %+v", w.Verdicts[second])
	}

	// The record of requests is gone after an hour, the published one stays.
	w.Publish("n1", w.Request(first).Certificate)
	w.AllRequests = nil
	third := w.Ask("n2", stolen)
	w.Settle(worker.pass)
	if got := w.Verdicts[third].Reason; got != string(approval.ReasonKeyOfOtherNode) {
		t.Errorf("a key that another node has published: verdict %+v", w.Verdicts[third])
	}

	// The owner is gone for good.
	delete(w.Nodes, "n1")
	fourth := w.Ask("n2", stolen)
	w.Settle(worker.pass)
	if w.Certificate(fourth, worker.authority.Bundle()).Node.Name != "n2" {
		t.Error("the key of a node that is gone is still taken")
	}
}

func TestForeignCertificateBlocksNoKey(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	w.AddNode("n2", "u2", "10.244.2.0/24")
	key := controllertest.NewKey(t)
	foreign := newTestWorker(t, w) // with a root of its own
	name := w.Ask("n1", key)
	w.Settle(foreign.pass)
	w.Publish("n1", w.Request(name).Certificate)
	w.AllRequests = nil

	name = w.Ask("n2", key)
	worker := newTestWorker(t, w)
	w.Settle(worker.pass)
	w.Certificate(name, worker.authority.Bundle())
}
