// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr/ca"
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
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	w.addNode("n2", "u2", "10.244.2.0/24")
	w.addNode("n3", "u3", "10.244.3.0/24")
	key := newKey(t)
	for range 5 {
		w.ask("n1", key)
	}
	w.ask("n2", key)
	w.ask("n3", key)
	w.ask("n2", key)
	stranger := *w.request(w.ask("n2", key)) // another pod on that node
	w.requests[len(w.requests)-1].Username = "system:serviceaccount:default:x"

	q := newQueue()
	expect := func(want, surplus []string) []kube.Request {
		t.Helper()
		got, tooMany := q.plan(w.requests)
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

	w.requests = nil
	if q.plan(nil); len(q.turns) != 0 {
		t.Errorf("remembers %v of requests that are gone", q.turns)
	}
}

// TestCrowd lets so many nodes join at once that agents take their requests back
// before all can have been served, and ask anew.
func TestCrowd(t *testing.T) {
	const nodes, perDecision = 200, time.Second // of which one makes two decisions
	w := newWorld(t)
	worker := newTestWorker(t, w)
	asked := map[string]time.Time{}
	for i := range nodes {
		name := fmt.Sprintf("n%03d", i)
		w.addNode(name, "u"+name, fmt.Sprintf("10.0.%d.0/24", i))
		asked[w.ask(name, newKey(t))] = w.now
	}
	withdrawn := 0
	worker.signer.desk = slowDesk{w, func() {
		w.now = w.now.Add(perDecision)
		for i, r := range w.requests {
			if len(r.Certificate) > 0 || w.now.Sub(asked[r.Name]) < patienceOfAgents {
				continue
			}
			withdrawn++
			delete(asked, r.Name)
			r.Name, r.UID, r.Approved = fmt.Sprintf("again-%d", withdrawn), fmt.Sprintf("again-%d", withdrawn), false
			w.requests[i], asked[r.Name] = r, w.now
		}
	}}
	start := w.now
	for answered := 0; answered < nodes; {
		before, began := answered, w.now
		if err := worker.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := w.now.Sub(began); took > decidePeriod+2*perDecision {
			t.Errorf("a pass took %v", took)
		}
		answered = 0
		for _, r := range w.requests {
			if len(r.Certificate) > 0 {
				answered++
			}
		}
		if answered == before {
			t.Fatalf("after %v: %d of %d nodes have a certificate, and no pass changes that", w.now.Sub(start), answered, nodes)
		}
		if answered < nodes && worker.again != 0 {
			t.Errorf("with %d of %d answered the next pass is due in %v", answered, nodes, worker.again)
		}
	}
	if withdrawn == 0 {
		t.Error("no request was taken back: the crowd was too small")
	}
}

// flood adds requests as the thief of a node's agent's token makes them.
func (w *world) flood(like kube.Request, n int) {
	for range n {
		w.asked++
		like.Name, like.Created = fmt.Sprintf("sealane-x.%d", w.asked), w.now
		like.UID = "uid-" + like.Name
		w.requests = append(w.requests, like)
	}
}

func TestFloodOfOneNodeLeavesOthersTheirTurn(t *testing.T) {
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	w.addNode("n2", "u2", "10.244.2.0/24")
	worker := newTestWorker(t, w)
	like := *w.request(w.ask("n1", newKey(t)))
	w.flood(like, 4000)
	lookups := 0
	worker.signer.facts = counted{w, &lookups}
	worker.signer.desk = slowDesk{w, func() {
		w.now = w.now.Add(50 * time.Millisecond)
		w.flood(like, 1)
	}}
	for range 5 {
		name, asked := w.ask("n2", newKey(t)), w.now
		w.flood(like, 5)
		if err := worker.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(w.request(name).Certificate) == 0 && w.verdicts[name].Reason != string(ca.ReasonRateLimit) {
			t.Errorf("n2 has no answer after %v", w.now.Sub(asked))
		}
		if took := w.now.Sub(asked); took > decidePeriod+time.Second {
			t.Errorf("the pass took %v", took)
		}
	}
	if lookups > 5*2*2 {
		t.Errorf("read facts %d times, for two applicants in 5 passes", lookups)
	}
	if got := testutil.ToFloat64(worker.metrics.denied.WithLabelValues(string(ca.ReasonRateLimit))); got < 400 {
		t.Errorf("%v requests of the flood were denied", got)
	}
	if got := len(w.events); got > 5*4 {
		t.Errorf("%d Events in 5 passes", got)
	}
}

// counted counts how often facts are read.
type counted struct {
	*world
	lookups *int
}

func (c counted) DaemonSetUID(ctx context.Context, name string) (string, error) {
	*c.lookups++
	return c.world.DaemonSetUID(ctx, name)
}

// staleFeed shows requests as they were at some time.
type staleFeed struct {
	*world
	requests []kube.Request
}

func (f staleFeed) Requests() ([]kube.Request, bool) { return slices.Clone(f.requests), true }

func TestCacheThatIsBehind(t *testing.T) {
	w := newWorld(t)
	w.addNode("n1", "u1", "10.244.1.0/24")
	w.addNode("n2", "u2", "10.244.2.0/24")
	key := newKey(t)
	first := w.ask("n1", key)
	worker := newTestWorker(t, w)
	stale := staleFeed{w, slices.Clone(w.requests)}
	worker.requests = stale
	settle(t, w, worker)
	issued := string(w.request(first).Certificate)
	if writes := w.writes; issued == "" {
		t.Fatal("not issued")
	} else if settle(t, w, worker); w.writes != writes || testutil.ToFloat64(worker.metrics.issued) != 1 {
		t.Error("decided twice")
	}

	second := w.ask("n2", key) // the same key
	stale.requests = append(stale.requests, *w.request(second))
	worker.requests = stale
	settle(t, w, worker)
	if got := w.verdicts[second].Reason; got != string(ca.ReasonKeyOfOtherNode) {
		t.Errorf("got verdict %q on a key that was issued a moment ago", got)
	}
	if len(worker.queue.decided) != 2 {
		t.Errorf("remembers %d decisions, want 2", len(worker.queue.decided))
	}
	worker.requests = w
	settle(t, w, worker)
	if len(worker.queue.decided) != 0 {
		t.Errorf("remembers %d decisions that the cache shows", len(worker.queue.decided))
	}
}

func TestRunServesWhatIsLeftAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.now = time.Now()
		w.addNode("n1", "u1", "10.244.1.0/24")
		key := newKey(t)
		for range maxWaiting {
			w.ask("n1", key)
		}
		worker := newTestWorker(t, w)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		start := time.Now()
		go func() { defer close(done); worker.run(ctx) }()
		synctest.Wait()
		for _, r := range w.requests { // there was no news, and no time has passed
			if r.Pending() {
				t.Errorf("request %s still waits after %v", r.Name, time.Since(start))
			}
		}
		cancel()
		<-done
	})
}
