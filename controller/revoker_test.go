// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strconv"
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

func (w *world) PublishRecord(_ context.Context, r kube.RevocationRecord) (kube.RevocationRecord, error) {
	if err := w.failing(); err != nil {
		return kube.RevocationRecord{}, err
	}
	if r.Version != w.record.Version {
		return kube.RevocationRecord{}, kube.ErrConflict
	}
	w.writes++
	r.Version = "v" + strconv.Itoa(w.writes)
	w.record = r
	return r, nil
}

func (w *world) ReportRevocation(_ context.Context, r kube.Revocation) error {
	if err := w.failing(); err != nil {
		return err
	}
	i := slices.IndexFunc(w.orders, func(o kube.Revocation) bool { return o.Name == r.Name })
	if i < 0 {
		return kube.ErrNotFound
	}
	w.writes++
	w.orders[i].Status = r.Status
	return nil
}

func (w *world) order(node string, reason keymgr.RevocationReason) {
	n := w.nodes[node]
	w.orders = append(w.orders, kube.Revocation{
		Name: n.UID, UID: "order-" + n.UID, Node: keymgr.NodeID{Name: n.Name, UID: n.UID}, Reason: reason, Message: "as ordered",
	})
}

// leader is a worker and a revoker of one term.
type leader struct {
	*worker
	revoker *revoker
}

func newLeader(t *testing.T, w *world) *leader {
	t.Helper()
	l := &leader{worker: newTestWorker(t, w)}
	return l.succeed(w)
}

// succeed gives the next term to a controller that remembers nothing.
func (l *leader) succeed(w *world) *leader {
	next := *l.worker
	next.signer = &signer{}
	*next.signer = *l.signer
	next.collector = &collector{registry: w, metrics: l.metrics, log: l.log}
	r := &revoker{
		registrar: l.authority.(*ca.Authority), vault: l.authority.(*ca.Authority), requests: w, cluster: w, notice: w, report: w, register: newRegister(), news: make(chan struct{}, 1),
		trustDomain: testDomain, lifetime: ca.DefaultLeafLifetime, metrics: l.metrics, log: slog.New(slog.DiscardHandler), clock: l.clock,
	}
	next.signer.revoked, next.collector.register = r.register, r.register
	return &leader{worker: &next, revoker: r}
}

// pass lets both look once, the revoker first.
func (l *leader) rest(t *testing.T, w *world) {
	t.Helper()
	for range 20 {
		before := w.writes
		if err := l.revoker.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := l.worker.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		if w.writes == before {
			return
		}
	}
	t.Fatal("never came to rest")
}

// list reads what is published as a node does.
func (l *leader) list(t *testing.T, w *world) keymgr.RevocationList {
	t.Helper()
	signed, err := keymgr.DecodeSigned(w.record.List)
	if err != nil {
		t.Fatal(err)
	}
	list, err := keymgr.VerifyRevocations(signed, l.authority.Bundle(), testDomain, w.now)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func (w *world) reasons() []string {
	var out []string
	for _, e := range w.events {
		out = append(out, e.Reason+" "+e.Name)
	}
	return out
}

func TestOrderIsCarriedOut(t *testing.T) {
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	w.addNode("n2", "u2", "10.244.2.0/24")
	key := newKey(t)
	first, second := w.ask("n1", key), w.ask("n1", newKey(t))
	l := newLeader(t, w)
	l.rest(t, w)
	w.publish("n1", w.request(first).Certificate)
	empty := l.list(t, w)
	if len(empty.Nodes) != 0 || len(w.record.CRL) == 0 {
		t.Fatalf("at first: list %+v, CRL %x", empty, w.record.CRL)
	}
	w.events = nil

	w.order("n1", keymgr.ReasonKeyCompromise)
	l.rest(t, w)
	list := l.list(t, w)
	entry, _ := list.Node("u1")
	if list.Number <= empty.Number || !entry.Blocked || len(entry.Keys) != 2 || len(entry.Serials) != 2 || entry.Reason != keymgr.ReasonKeyCompromise {
		t.Errorf("list %+v", list)
	}
	if got := w.orders[0].Status; got.Number != list.Number || !got.RevokedAt.Equal(entry.At) || len(got.Keys) != 2 || len(got.Serials) != 2 {
		t.Errorf("status %+v", got)
	}
	crl, err := x509.ParseRevocationList(w.record.CRL)
	if err != nil || len(crl.RevokedCertificateEntries) != 2 {
		t.Errorf("CRL %+v, %v; want both certificates, %s and %s", crl, err, first, second)
	}
	if diff := cmp.Diff([]string{"NodeRevoked n1"}, w.reasons()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if !strings.Contains(w.events[0].Message, "keyCompromise") || !strings.Contains(w.events[0].Message, "as ordered") {
		t.Errorf("event %+v", w.events[0])
	}
	if got := testutil.ToFloat64(l.metrics.revoked.WithLabelValues("blocked")); got != 1 {
		t.Errorf("counted %v blocked", got)
	}

	again := w.ask("n1", newKey(t))
	good := w.ask("n2", newKey(t))
	l.rest(t, w)
	if w.verdicts[again].Reason != string(ca.ReasonNodeRevoked) || len(w.request(good).Certificate) == 0 {
		t.Errorf("verdicts %+v", w.verdicts)
	}

	w.orders, w.events = nil, nil
	l.rest(t, w)
	if entry, _ = l.list(t, w).Node("u1"); entry.Blocked || len(entry.Keys) != 2 {
		t.Errorf("readmitted: %+v", entry)
	}
	if len(w.keys) != 0 {
		t.Error("the NodeKey with the revoked key is in the way of the next one")
	}
	if diff := cmp.Diff([]string{"NodeReadmitted n1"}, w.reasons()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	old, fresh := w.ask("n1", key), w.ask("n1", newKey(t))
	l.rest(t, w)
	if w.verdicts[old].Reason != string(ca.ReasonKeyRevoked) || len(w.request(fresh).Certificate) == 0 {
		t.Errorf("verdicts %+v", w.verdicts)
	}
	w.publish("n1", w.request(fresh).Certificate)
	l.rest(t, w)
	if entry, _ = l.list(t, w).Node("u1"); len(entry.Keys) != 2 || len(w.keys) != 1 {
		t.Errorf("the new key of a readmitted node is revoked: %+v", entry)
	}
}

// TestDeletedNodeIsRevokedBeforeItsNodeKeyGoes, and one that left only rubbish is
// collected all the same.
func TestDeletedNodeIsRevokedBeforeItsNodeKeyGoes(t *testing.T) {
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	name := w.ask("n1", newKey(t))
	l := newLeader(t, w)
	l.rest(t, w)
	w.publish("n1", w.request(name).Certificate)
	w.requests = nil // as after an hour: the NodeKey alone tells the key
	w.keys["n9"], w.claims["n9"] = keymgr.Signed{Chain: [][]byte{[]byte("rubbish")}}, "u9"
	delete(w.nodes, "n1")

	if err := l.worker.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(w.claims) != 2 {
		t.Fatalf("collected before the identity was revoked: %v", w.claims)
	}
	l.rest(t, w)
	entry, _ := l.list(t, w).Node("u1")
	if !entry.Blocked || len(entry.Keys) != 1 || entry.Reason != keymgr.ReasonCessationOfOperation {
		t.Errorf("entry %+v", entry)
	}
	select {
	case <-l.revoker.register.changed:
	default:
		t.Error("the worker is not told that there is something to collect")
	}
	if _, listed := l.list(t, w).Node("u9"); listed || len(w.claims) != 0 {
		t.Errorf("rubbish listed %t, left behind %v", listed, w.claims)
	}
	// Its successor of the same name has nothing to do with it.
	w.addNode("n1", "u1-new", "10.244.1.0/24")
	next := w.ask("n1", newKey(t))
	l.rest(t, w)
	if len(w.request(next).Certificate) == 0 {
		t.Errorf("verdict %+v", w.verdicts[next])
	}
}

func TestManyDeletedNodesTakeTurns(t *testing.T) {
	w := newWorld(t)
	l := newLeader(t, w)
	l.rest(t, w)
	for i := range 3 * lookups {
		w.claims["n"+strconv.Itoa(i)] = "u" + strconv.Itoa(i)
	}
	passes := 0
	for done := false; !done; passes++ {
		select {
		case <-l.revoker.news:
		default:
			done = passes > 0
		}
		if err := l.revoker.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for name, uid := range w.claims {
		if !l.revoker.register.isSettled(uid) {
			t.Errorf("%s was forgotten after %d passes", name, passes)
		}
	}
}

// TestLiveNodeIsNotTakenForGone: a snapshot may show a NodeKey before its node.
func TestLiveNodeIsNotTakenForGone(t *testing.T) {
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	name := w.ask("n1", newKey(t))
	l := newLeader(t, w)
	l.rest(t, w)
	w.publish("n1", w.request(name).Certificate)
	s, _ := w.Snapshot()
	s.Nodes = nil
	facts, dead, err := l.revoker.facts(t.Context(), keymgr.RevocationList{}, s, w.requests)
	if err != nil || len(facts.Gone) != 0 || len(dead) != 0 {
		t.Errorf("gone %v, dead %v, %v", facts.Gone, dead, err)
	}
	w.set(errAway, false)
	if _, _, err := l.revoker.facts(t.Context(), keymgr.RevocationList{}, s, nil); !errors.Is(err, errAway) {
		t.Errorf("got error %v", err)
	}
}

// TestTamperedRecord: whatever somebody writes into the ConfigMap, the list comes
// back with all that was in it.
func TestTamperedRecord(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		for name, tamper := range map[string]func(w *world, before kube.RevocationRecord){
			"deleted":   func(w *world, _ kube.RevocationRecord) { w.record = kube.RevocationRecord{} },
			"emptied":   func(w *world, _ kube.RevocationRecord) { w.record.List, w.record.CRL = nil, nil },
			"spoilt":    func(w *world, _ kube.RevocationRecord) { w.record.List = []byte(`{"payload":"e30="}`) },
			"put back":  func(w *world, before kube.RevocationRecord) { w.record.List, w.record.CRL = before.List, before.CRL },
			"no CRL":    func(w *world, _ kube.RevocationRecord) { w.record.CRL = nil },
			"other CRL": func(w *world, _ kube.RevocationRecord) { w.record.CRL = []byte("x") },
		} {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t)
				w.addNode("n1", "u1", "10.244.1.0/24")
				first := w.ask("n1", newKey(t))
				l := newLeader(t, w)
				l.rest(t, w)
				before := w.record
				w.publish("n1", w.request(first).Certificate)
				w.order("n1", keymgr.ReasonKeyCompromise)
				l.rest(t, w)
				number := l.list(t, w).Number
				if restarted {
					l = l.succeed(w)
				}
				w.now = w.now.Add(time.Second)
				w.requests = nil
				tamper(w, before)
				if w.record.Version != "" {
					w.record.Version += "-tampered"
				}
				l.rest(t, w)
				list := l.list(t, w)
				entry, _ := list.Node("u1")
				if list.Number < number || !entry.Blocked || len(entry.Keys) != 1 {
					t.Errorf("list %d after %d: %+v", list.Number, number, list)
				}
				if _, err := x509.ParseRevocationList(w.record.CRL); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestCacheBehindOwnWrite: what the leader has just written is not undone, nor
// tried to be, because its cache does not show it yet.
func TestCacheBehindOwnWrite(t *testing.T) {
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	l := newLeader(t, w)
	l.rest(t, w)
	old := w.record
	w.order("n1", keymgr.ReasonKeyCompromise)
	l.rest(t, w)
	current := w.record
	behind := &lagging{world: w, record: old}
	l.revoker.cluster = behind
	for range 3 {
		if err := l.revoker.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if w.record.Version != current.Version {
		t.Error("written again")
	}
}

// lagging shows an old record.
type lagging struct {
	*world
	record kube.RevocationRecord
}

func (l *lagging) Snapshot() (kube.Snapshot, bool) {
	s, complete := l.world.Snapshot()
	s.Revoked = l.record
	return s, complete
}

// TestTwoLeaders: one that is late gets a conflict, and publishes nothing.
func TestTwoLeaders(t *testing.T) {
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	first := newLeader(t, w)
	first.rest(t, w)
	late := first.succeed(w)
	late.revoker.cluster = &lagging{world: w, record: w.record}
	w.order("n1", keymgr.ReasonKeyCompromise)
	first.rest(t, w)
	current := w.record
	w.now = w.now.Add(time.Second)
	if err := late.revoker.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.record.Version != current.Version {
		t.Error("the late leader wrote")
	}
	late.revoker.cluster = w
	late.rest(t, w)
	if entry, _ := late.list(t, w).Node("u1"); !entry.Blocked {
		t.Errorf("entry %+v", entry)
	}
}

func TestCRLIsRenewedWithoutNews(t *testing.T) {
	w := newWorld(t)
	l := newLeader(t, w)
	l.rest(t, w)
	before := w.record
	w.now = w.now.Add(ca.CRLLifetime/2 + time.Hour)
	l.rest(t, w)
	if string(w.record.CRL) == string(before.CRL) || string(w.record.List) != string(before.List) {
		t.Error("want another CRL beside the same list")
	}
}

// TestNothingIsSignedBeforeTheListIsKnown: a new leader does not give a revoked
// node a certificate because it has not looked yet.
func TestNothingIsSignedBeforeTheListIsKnown(t *testing.T) {
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	w.order("n1", keymgr.ReasonKeyCompromise)
	name := w.ask("n1", newKey(t))
	l := newLeader(t, w)
	if err := l.worker.pass(t.Context()); !errors.Is(err, errNoRegister) {
		t.Errorf("got error %v", err)
	}
	if w.request(name).Approved {
		t.Error("approved")
	}
	l.rest(t, w)
	if w.verdicts[name].Reason != string(ca.ReasonNodeRevoked) {
		t.Errorf("verdict %+v", w.verdicts[name])
	}
}

// TestRevokerRetriesAndRests: after a failure it tries again by itself, soon; at
// rest it wakes for the CRL only.
func TestRevokerRetriesAndRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.addNode("n1", "u1", "10.244.1.0/24")
		l := newLeader(t, w)
		w.set(errAway, false)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { l.revoker.run(ctx); close(done) }()
		synctest.Wait()
		w.set(nil, false)
		time.Sleep(minPause + time.Millisecond)
		synctest.Wait()
		if w.record.Version == "" {
			t.Error("not tried again")
		}
		failures := testutil.ToFloat64(l.metrics.failures)
		w.order("n1", keymgr.ReasonUnspecified)
		l.revoker.again() // as the watch does
		synctest.Wait()   // without any time passing
		if entry, _ := l.list(t, w).Node("u1"); !entry.Blocked {
			t.Error("news did not wake it")
		}
		if failures == 0 || failures != testutil.ToFloat64(l.metrics.failures) {
			t.Errorf("counted %v failures", failures)
		}
		stop()
		<-done
	})
}

func TestMalformedOrderHindersNoOther(t *testing.T) {
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	w.orders = []kube.Revocation{{Name: "bad", Node: keymgr.NodeID{Name: "N", UID: ""}}}
	w.order("n1", keymgr.ReasonUnspecified)
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
