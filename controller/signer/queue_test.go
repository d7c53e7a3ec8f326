// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package signer

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sealane/sealane/controller/controllertest"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr/approval"
)

// patienceOfAgents is how long an agent waits before it takes its request back.
const patienceOfAgents = 2 * time.Minute

func names(requests []kube.Request) []string {
	var out []string
	for _, r := range requests {
		out = append(out, r.Name)
	}
	return out
}

func TestQueueGivesEachApplicantOneTurn(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	w.AddNode("n2", "u2", "10.244.2.0/24")
	w.AddNode("n3", "u3", "10.244.3.0/24")
	key := controllertest.NewKey(t)
	for range 5 {
		w.Ask("n1", key)
	}
	w.Ask("n2", key)
	w.Ask("n3", key)
	w.Ask("n2", key)
	stranger := *w.Request(w.Ask("n2", key)) // another pod on that node
	w.AllRequests[len(w.AllRequests)-1].Username = "system:serviceaccount:default:x"

	q := newQueue()
	expect := func(want, surplus []string) []kube.Request {
		t.Helper()
		got, tooMany := q.plan(w.AllRequests)
		if diff := cmp.Diff(want, names(got)); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(surplus, names(tooMany)); diff != "" {
			t.Errorf("surplus (-want +got):\n%s", diff)
		}
		return got
	}
	surplus := []string{"sealane-n1.0", "sealane-n1.1"}
	next := expect([]string{"sealane-n1.4", "sealane-n3.6", "sealane-n2.7", stranger.Name}, surplus)
	q.serve(next[0])
	q.serve(next[1])
	next = expect([]string{"sealane-n2.7", stranger.Name, "sealane-n1.4", "sealane-n3.6"}, surplus)
	q.serve(next[0])
	expect([]string{stranger.Name, "sealane-n1.4", "sealane-n3.6", "sealane-n2.7"}, surplus)

	w.AllRequests = nil
	if q.plan(nil); len(q.lastServed) != 0 {
		t.Errorf("remembers %v of requests that are gone", q.lastServed)
	}
}

// TestCrowd lets so many nodes join at once that agents take their requests back
// before all can have been served, and ask again.
func TestCrowd(t *testing.T) {
	const nodes, perDecision = 200, time.Second // of which one makes two decisions
	w := controllertest.NewWorld(t)
	worker := newTestWorker(t, w)
	asked := map[string]time.Time{}
	for i := range nodes {
		name := fmt.Sprintf("n%03d", i)
		w.AddNode(name, "u"+name, fmt.Sprintf("10.0.%d.0/24", i))
		asked[w.Ask(name, controllertest.NewKey(t))] = w.Now
	}
	withdrawn := 0
	worker.CSRs = slowCSRs{w, func() {
		w.Now = w.Now.Add(perDecision)
		for i, r := range w.AllRequests {
			if len(r.Certificate) > 0 || w.Now.Sub(asked[r.Name]) < patienceOfAgents {
				continue
			}
			withdrawn++
			delete(asked, r.Name)
			r.Name, r.UID, r.Approved = fmt.Sprintf("again-%d", withdrawn), fmt.Sprintf("again-%d", withdrawn), false
			w.AllRequests[i], asked[r.Name] = r, w.Now
		}
	}}
	start := w.Now
	for answered := 0; answered < nodes; {
		before, began := answered, w.Now
		if err := worker.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := w.Now.Sub(began); took > decidePeriod+2*perDecision {
			t.Errorf("a pass took %v", took)
		}
		answered = 0
		for _, r := range w.AllRequests {
			if len(r.Certificate) > 0 {
				answered++
			}
		}
		if answered == before {
			t.Fatalf("after %v: %d of %d nodes have a certificate, and no pass changes that", w.Now.Sub(start), answered, nodes)
		}
		if answered < nodes && worker.again != 0 {
			t.Errorf("with %d of %d answered the next pass is due in %v", answered, nodes, worker.again)
		}
	}
	if withdrawn == 0 {
		t.Error("no request was taken back: the crowd was too small")
	}
}

func TestFloodOfOneNodeLeavesOthersTheirTurn(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	w.AddNode("n2", "u2", "10.244.2.0/24")
	worker := newTestWorker(t, w)
	like := *w.Request(w.Ask("n1", controllertest.NewKey(t)))
	w.Flood(like, 4000)
	lookups := 0
	worker.Live = counted{w, &lookups}
	worker.CSRs = slowCSRs{w, func() {
		w.Now = w.Now.Add(50 * time.Millisecond)
		w.Flood(like, 1)
	}}
	for range 5 {
		name, asked := w.Ask("n2", controllertest.NewKey(t)), w.Now
		w.Flood(like, 5)
		if err := worker.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(w.Request(name).Certificate) == 0 && w.Verdicts[name].Reason != string(approval.ReasonRateLimit) {
			t.Errorf("n2 has no answer after %v", w.Now.Sub(asked))
		}
		if took := w.Now.Sub(asked); took > decidePeriod+time.Second {
			t.Errorf("the pass took %v", took)
		}
	}
	if lookups > 5*2*2 {
		t.Errorf("read facts %d times, for two applicants in 5 passes", lookups)
	}
	if got := testutil.ToFloat64(worker.Metrics.denied.WithLabelValues(string(approval.ReasonRateLimit))); got < 400 {
		t.Errorf("%v requests of the flood were denied", got)
	}
	if got := len(w.Events); got > 5*4 {
		t.Errorf("%d Events in 5 passes", got)
	}
}

// counted counts how often facts are read.
type counted struct {
	*controllertest.World
	lookups *int
}

func (c counted) DaemonSetUID(ctx context.Context, name string) (string, error) {
	*c.lookups++
	return c.World.DaemonSetUID(ctx, name)
}

// staleFeed shows requests as they were at some time.
type staleFeed struct {
	*controllertest.World
	requests []kube.Request
}

func (f staleFeed) Requests() ([]kube.Request, bool) { return slices.Clone(f.requests), true }

func TestCacheThatIsBehind(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	w.AddNode("n2", "u2", "10.244.2.0/24")
	key := controllertest.NewKey(t)
	first := w.Ask("n1", key)
	worker := newTestWorker(t, w)
	stale := staleFeed{w, slices.Clone(w.AllRequests)}
	worker.Requests = stale
	w.Settle(worker.pass)
	issued := string(w.Request(first).Certificate)
	if writes := w.Writes; issued == "" {
		t.Fatal("not issued")
	} else if w.Settle(worker.pass); w.Writes != writes || testutil.ToFloat64(worker.Metrics.issued) != 1 {
		t.Error("decided twice")
	}

	second := w.Ask("n2", key) // the same key
	stale.requests = append(stale.requests, *w.Request(second))
	worker.Requests = stale
	w.Settle(worker.pass)
	if got := w.Verdicts[second].Reason; got != string(approval.ReasonKeyOfOtherNode) {
		t.Errorf("got verdict %q on a key that was issued a moment ago", got)
	}
	if len(worker.queue.decided) != 2 {
		t.Errorf("remembers %d decisions, want 2", len(worker.queue.decided))
	}
	worker.Requests = w
	w.Settle(worker.pass)
	if len(worker.queue.decided) != 0 {
		t.Errorf("remembers %d decisions that the cache shows", len(worker.queue.decided))
	}
}
