// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sealane/sealane/controller/authority"
	"github.com/sealane/sealane/controller/controllertest"
	"github.com/sealane/sealane/controller/signer"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/ca/memorystore"
)

// leader has the parts of one term, with the revoker among them.
type leader struct {
	authority  *ca.Authority
	maintainer *authority.Maintainer
	signer     *signer.Signer
	collector  *Collector
	revoker    *Revoker
	world      *controllertest.World
}

func newLeader(t *testing.T, w *controllertest.World) *leader {
	t.Helper()
	opened, err := ca.Open(t.Context(), ca.Config{
		TrustDomain: controllertest.TrustDomain, Store: memorystore.New(), RootStore: memorystore.New(),
		Clock: func() time.Time { return w.Now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return elect(w, opened)
}

// succeed starts the next term, with a controller that remembers nothing.
func (l *leader) succeed(w *controllertest.World) *leader { return elect(w, l.authority) }

func elect(w *controllertest.World, opened *ca.Authority) *leader {
	clock, log := func() time.Time { return w.Now }, slog.New(slog.DiscardHandler)
	state, metrics := NewState(), NewMetrics()
	return &leader{
		authority: opened, world: w,
		maintainer: &authority.Maintainer{
			CA: opened, Publisher: w, Mode: authority.ModeSelf, Metrics: authority.NewMetrics(), Log: log, Clock: clock,
		},
		signer: signer.New(signer.Config{
			Requests: w, CSRs: w, Live: w, Events: w, Issuer: opened, Revocations: state,
			Policy: approval.Policy{
				TrustDomain: controllertest.TrustDomain, Namespace: kube.DefaultNamespace,
				ServiceAccount: kube.AgentServiceAccount, MaxPerHour: 3,
			},
			Metrics: signer.NewMetrics(), Progress: func() {}, Log: log, Clock: clock,
		}),
		collector: &Collector{Client: w, State: state, Metrics: metrics, Log: log},
		revoker: New(Config{
			Requests: w, Cluster: w, Signer: opened, Store: opened, Publisher: w, Events: w, State: state,
			TrustDomain: controllertest.TrustDomain, Lifetime: approval.DefaultLeafLifetime, Metrics: metrics,
			Failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "failures"}), Log: log, Clock: clock,
		}),
	}
}

// work is a pass of all parts but the revoker.
func (l *leader) work(ctx context.Context) error {
	snapshot, _ := l.world.Snapshot()
	maintained := l.maintainer.Pass(ctx, snapshot)
	_, signed := l.signer.Pass(ctx, snapshot)
	return errors.Join(maintained, signed, l.collector.Collect(ctx, snapshot))
}

// pass lets both look once, the revoker first.
func (l *leader) rest(t *testing.T, w *controllertest.World) {
	t.Helper()
	for range 20 {
		before := w.Writes
		if err := l.revoker.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := l.work(t.Context()); err != nil {
			t.Fatal(err)
		}
		if w.Writes == before {
			return
		}
	}
	t.Fatal("never came to rest")
}

// list reads what is published as a node does.
func (l *leader) list(t *testing.T, w *controllertest.World) keymgr.RevocationList {
	t.Helper()
	signed, err := keymgr.DecodeSigned(w.Record.List)
	if err != nil {
		t.Fatal(err)
	}
	list, err := keymgr.VerifyRevocations(signed, l.authority.Bundle(), controllertest.TrustDomain, w.Now)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestOrderIsCarriedOut(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	w.AddNode("n2", "u2", "10.244.2.0/24")
	key := controllertest.NewKey(t)
	first, second := w.Ask("n1", key), w.Ask("n1", controllertest.NewKey(t))
	l := newLeader(t, w)
	l.rest(t, w)
	w.Publish("n1", w.Request(first).Certificate)
	empty := l.list(t, w)
	if len(empty.Nodes) != 0 || len(w.Record.CRL) == 0 {
		t.Fatalf("at first: list %+v, CRL %x", empty, w.Record.CRL)
	}
	w.Events = nil

	w.Order("n1", keymgr.ReasonKeyCompromise)
	l.rest(t, w)
	list := l.list(t, w)
	entry, _ := list.Node("u1")
	if list.Number <= empty.Number || !entry.Blocked || len(entry.Keys) != 2 || len(entry.Serials) != 2 || entry.Reason != keymgr.ReasonKeyCompromise {
		t.Errorf("list %+v", list)
	}
	if got := w.Orders[0].Status; got.Number != list.Number || !got.RevokedAt.Equal(entry.At) || len(got.Keys) != 2 || len(got.Serials) != 2 {
		t.Errorf("status %+v", got)
	}
	crl, err := x509.ParseRevocationList(w.Record.CRL)
	if err != nil || len(crl.RevokedCertificateEntries) != 2 {
		t.Errorf("CRL %+v, %v; want both certificates, %s and %s", crl, err, first, second)
	}
	if diff := cmp.Diff([]string{"NodeRevoked n1"}, w.EventReasons()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if !strings.Contains(w.Events[0].Message, "keyCompromise") || !strings.Contains(w.Events[0].Message, "as ordered") {
		t.Errorf("event %+v", w.Events[0])
	}
	if got := testutil.ToFloat64(l.revoker.Metrics.nodes.WithLabelValues("blocked")); got != 1 {
		t.Errorf("counted %v blocked", got)
	}

	again := w.Ask("n1", controllertest.NewKey(t))
	good := w.Ask("n2", controllertest.NewKey(t))
	l.rest(t, w)
	if w.Verdicts[again].Reason != string(approval.ReasonNodeRevoked) || len(w.Request(good).Certificate) == 0 {
		t.Errorf("verdicts %+v", w.Verdicts)
	}

	w.Orders, w.Events = nil, nil
	l.rest(t, w)
	if entry, _ = l.list(t, w).Node("u1"); entry.Blocked || len(entry.Keys) != 2 {
		t.Errorf("readmitted: %+v", entry)
	}
	if len(w.NodeKeys) != 0 {
		t.Error("the NodeKey with the revoked key is in the way of the next one")
	}
	if diff := cmp.Diff([]string{"NodeReadmitted n1"}, w.EventReasons()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	old, fresh := w.Ask("n1", key), w.Ask("n1", controllertest.NewKey(t))
	l.rest(t, w)
	if w.Verdicts[old].Reason != string(approval.ReasonKeyRevoked) || len(w.Request(fresh).Certificate) == 0 {
		t.Errorf("verdicts %+v", w.Verdicts)
	}
	w.Publish("n1", w.Request(fresh).Certificate)
	l.rest(t, w)
	if entry, _ = l.list(t, w).Node("u1"); len(entry.Keys) != 2 || len(w.NodeKeys) != 1 {
		t.Errorf("the new key of a readmitted node is revoked: %+v", entry)
	}
}

// TestDeletedNodeIsRevokedBeforeItsNodeKeyGoes, and one that left only rubbish is
// collected all the same.
func TestDeletedNodeIsRevokedBeforeItsNodeKeyGoes(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	name := w.Ask("n1", controllertest.NewKey(t))
	l := newLeader(t, w)
	l.rest(t, w)
	w.Publish("n1", w.Request(name).Certificate)
	w.AllRequests = nil // as after an hour: the NodeKey alone tells the key
	w.NodeKeys["n9"], w.Claims["n9"] = keymgr.Signed{Chain: [][]byte{[]byte("rubbish")}}, "u9"
	delete(w.Nodes, "n1")

	if err := l.work(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(w.Claims) != 2 {
		t.Fatalf("collected before the identity was revoked: %v", w.Claims)
	}
	l.rest(t, w)
	entry, _ := l.list(t, w).Node("u1")
	if !entry.Blocked || len(entry.Keys) != 1 || entry.Reason != keymgr.ReasonCessationOfOperation {
		t.Errorf("entry %+v", entry)
	}
	select {
	case <-l.revoker.State.changed:
	default:
		t.Error("the worker is not told that there is something to collect")
	}
	if _, listed := l.list(t, w).Node("u9"); listed || len(w.Claims) != 0 {
		t.Errorf("rubbish listed %t, left behind %v", listed, w.Claims)
	}
	// Its successor of the same name has nothing to do with it.
	w.AddNode("n1", "u1-new", "10.244.1.0/24")
	next := w.Ask("n1", controllertest.NewKey(t))
	l.rest(t, w)
	if len(w.Request(next).Certificate) == 0 {
		t.Errorf("verdict %+v", w.Verdicts[next])
	}
}

func TestManyDeletedNodesTakeTurns(t *testing.T) {
	w := controllertest.NewWorld(t)
	l := newLeader(t, w)
	l.rest(t, w)
	for i := range 3 * lookups {
		w.Claims["n"+strconv.Itoa(i)] = "u" + strconv.Itoa(i)
	}
	passes := 0
	for done := false; !done; passes++ {
		select {
		case <-l.revoker.changed:
		default:
			done = passes > 0
		}
		if err := l.revoker.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for name, uid := range w.Claims {
		if !l.revoker.State.Settled(uid) {
			t.Errorf("%s was forgotten after %d passes", name, passes)
		}
	}
}

// TestLiveNodeIsNotTakenForGone: a snapshot may show a NodeKey before its node.
func TestLiveNodeIsNotTakenForGone(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	name := w.Ask("n1", controllertest.NewKey(t))
	l := newLeader(t, w)
	l.rest(t, w)
	w.Publish("n1", w.Request(name).Certificate)
	s, _ := w.Snapshot()
	s.Nodes = nil
	facts, dead, err := l.revoker.facts(t.Context(), keymgr.RevocationList{}, s, w.AllRequests)
	if err != nil || len(facts.Gone) != 0 || len(dead) != 0 {
		t.Errorf("gone %v, dead %v, %v", facts.Gone, dead, err)
	}
	w.Set(controllertest.ErrAway, false)
	if _, _, err := l.revoker.facts(t.Context(), keymgr.RevocationList{}, s, nil); !errors.Is(err, controllertest.ErrAway) {
		t.Errorf("got error %v", err)
	}
}

// TestTamperedRecord: whatever somebody writes into the ConfigMap, the list comes
// back with all that was in it.
func TestTamperedRecord(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		for name, tamper := range map[string]func(w *controllertest.World, before cluster.RevocationRecord){
			"deleted": func(w *controllertest.World, _ cluster.RevocationRecord) { w.Record = cluster.RevocationRecord{} },
			"emptied": func(w *controllertest.World, _ cluster.RevocationRecord) { w.Record.List, w.Record.CRL = nil, nil },
			"spoilt": func(w *controllertest.World, _ cluster.RevocationRecord) {
				w.Record.List = []byte(`{"payload":"e30="}`)
			},
			"put back": func(w *controllertest.World, before cluster.RevocationRecord) {
				w.Record.List, w.Record.CRL = before.List, before.CRL
			},
			"no CRL":    func(w *controllertest.World, _ cluster.RevocationRecord) { w.Record.CRL = nil },
			"other CRL": func(w *controllertest.World, _ cluster.RevocationRecord) { w.Record.CRL = []byte("x") },
		} {
			t.Run(name, func(t *testing.T) {
				w := controllertest.NewWorld(t)
				w.AddNode("n1", "u1", "10.244.1.0/24")
				first := w.Ask("n1", controllertest.NewKey(t))
				l := newLeader(t, w)
				l.rest(t, w)
				before := w.Record
				w.Publish("n1", w.Request(first).Certificate)
				w.Order("n1", keymgr.ReasonKeyCompromise)
				l.rest(t, w)
				number := l.list(t, w).Number
				if restarted {
					l = l.succeed(w)
				}
				w.Now = w.Now.Add(time.Second)
				w.AllRequests = nil
				tamper(w, before)
				if w.Record.Version != "" {
					w.Record.Version += "-tampered"
				}
				l.rest(t, w)
				list := l.list(t, w)
				entry, _ := list.Node("u1")
				if list.Number < number || !entry.Blocked || len(entry.Keys) != 1 {
					t.Errorf("list %d after %d: %+v", list.Number, number, list)
				}
				if _, err := x509.ParseRevocationList(w.Record.CRL); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestCacheBehindOwnWrite: what the leader has just written is not undone, nor
// tried to be, because its cache does not show it yet.
func TestCacheBehindOwnWrite(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	l := newLeader(t, w)
	l.rest(t, w)
	old := w.Record
	w.Order("n1", keymgr.ReasonKeyCompromise)
	l.rest(t, w)
	current := w.Record
	behind := &lagging{World: w, record: old}
	l.revoker.Cluster = behind
	for range 3 {
		if err := l.revoker.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if w.Record.Version != current.Version {
		t.Error("written again")
	}
}

// lagging shows an old record.
type lagging struct {
	*controllertest.World
	record cluster.RevocationRecord
}

func (l *lagging) Snapshot() (cluster.Snapshot, bool) {
	s, complete := l.World.Snapshot()
	s.Revoked = l.record
	return s, complete
}

// TestTwoLeaders: one that is late gets a conflict, and publishes nothing.
func TestTwoLeaders(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	first := newLeader(t, w)
	first.rest(t, w)
	late := first.succeed(w)
	late.revoker.Cluster = &lagging{World: w, record: w.Record}
	w.Order("n1", keymgr.ReasonKeyCompromise)
	first.rest(t, w)
	current := w.Record
	w.Now = w.Now.Add(time.Second)
	if err := late.revoker.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.Record.Version != current.Version {
		t.Error("the late leader wrote")
	}
	late.revoker.Cluster = w
	late.rest(t, w)
	if entry, _ := late.list(t, w).Node("u1"); !entry.Blocked {
		t.Errorf("entry %+v", entry)
	}
}

func TestCRLIsRenewedWithoutNews(t *testing.T) {
	w := controllertest.NewWorld(t)
	l := newLeader(t, w)
	l.rest(t, w)
	before := w.Record
	w.Now = w.Now.Add(ca.CRLLifetime/2 + time.Hour)
	l.rest(t, w)
	if string(w.Record.CRL) == string(before.CRL) || string(w.Record.List) != string(before.List) {
		t.Error("want another CRL beside the same list")
	}
}

// TestNothingIsSignedBeforeTheListIsKnown: a new leader does not give a revoked
// node a certificate because it has not looked yet.
func TestNothingIsSignedBeforeTheListIsKnown(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	w.Order("n1", keymgr.ReasonKeyCompromise)
	name := w.Ask("n1", controllertest.NewKey(t))
	l := newLeader(t, w)
	if err := l.work(t.Context()); !errors.Is(err, signer.ErrRevocationsUnknown) {
		t.Errorf("got error %v", err)
	}
	if w.Request(name).Approved {
		t.Error("approved")
	}
	l.rest(t, w)
	if w.Verdicts[name].Reason != string(approval.ReasonNodeRevoked) {
		t.Errorf("verdict %+v", w.Verdicts[name])
	}
}

// TestRevokerRetriesAndRests: after a failure it tries again by itself, soon; at
// rest it wakes for the CRL only.
func TestRevokerRetriesAndRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := controllertest.NewWorld(t)
		w.AddNode("n1", "u1", "10.244.1.0/24")
		l := newLeader(t, w)
		w.Set(controllertest.ErrAway, false)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { l.revoker.Run(ctx); close(done) }()
		synctest.Wait()
		w.Set(nil, false)
		time.Sleep(minPause + time.Millisecond)
		synctest.Wait()
		if w.Record.Version == "" {
			t.Error("not tried again")
		}
		failures := testutil.ToFloat64(l.revoker.Failures)
		w.Order("n1", keymgr.ReasonUnspecified)
		l.revoker.wake() // as the watch does
		synctest.Wait()  // without any time passing
		if entry, _ := l.list(t, w).Node("u1"); !entry.Blocked {
			t.Error("news did not wake it")
		}
		if failures == 0 || failures != testutil.ToFloat64(l.revoker.Failures) {
			t.Errorf("counted %v failures", failures)
		}
		stop()
		<-done
	})
}

func TestMalformedOrderHindersNoOther(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	w.Orders = []cluster.Revocation{{Name: "bad", Node: keymgr.NodeID{Name: "N", UID: ""}}}
	w.Order("n1", keymgr.ReasonUnspecified)
	l := newLeader(t, w)
	l.rest(t, w)
	uids := map[string]bool{}
	for _, n := range l.list(t, w).Nodes {
		uids[n.UID] = n.Blocked
	}
	if !maps.Equal(uids, map[string]bool{"u1": true}) {
		t.Errorf("listed %v", uids)
	}
}
