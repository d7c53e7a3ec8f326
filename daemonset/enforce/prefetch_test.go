// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
)

// slowLists answers as the API server does, after a while, and counts.
type slowLists struct {
	mu       sync.Mutex // guards all below
	policies []*networkingv1.NetworkPolicy
	err      error
	asked    int
}

func (l *slowLists) list(ctx context.Context, _ string) ([]*networkingv1.NetworkPolicy, error) {
	l.mu.Lock()
	l.asked++
	policies, err := l.policies, l.err
	l.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(100 * time.Millisecond):
		return policies, err
	}
}

func (l *slowLists) want(t *testing.T, n int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked != n {
		t.Errorf("policies were asked for %d times, want %d", l.asked, n)
	}
}

func newSlowRig(t *testing.T) (*rig, *slowLists) {
	lists := &slowLists{}
	return newRig(t, func(cfg *Config) { cfg.Policies = lists.list }), lists
}

// TestPodThatWasForeseen: what a pod waits for was asked for when the watch showed
// it, and costs its runtime nothing.
func TestPodThatWasForeseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, lists := newSlowRig(t)
		lists.policies = []*networkingv1.NetworkPolicy{deny("first")}
		r.run()
		r.api.setPod(pod("web", "u", "n1"))
		time.Sleep(time.Second)
		lists.want(t, 1)
		begun := time.Now()
		done := r.attaching(t.Context(), ref("web", "u"), addrA)
		wantWaiting(t, done) // for the policy that the watch has yet to bring
		r.api.setPolicy(deny("first"))
		synctest.Wait()
		wantDone(t, done)
		r.wantGuard(addrA, true, true)
		if took := time.Since(begun); took != 0 {
			t.Errorf("connecting took %s", took)
		}
		lists.want(t, 1)

		r.api.setPod(pod("db", "v", "n1"))
		synctest.Wait()
		done = r.attaching(t.Context(), ref("db", "v"), addrB) // the answer is under way
		wantWaiting(t, done)
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		wantDone(t, done)
		lists.want(t, 2)
	})
}

// TestForesightIsNotReliedOn when it is old, an error or used up.
func TestForesightIsNotReliedOn(t *testing.T) {
	for name, change := range map[string]func(r *rig, l *slowLists){
		"old": func(*rig, *slowLists) { time.Sleep(prefetchLife) },
		"used up": func(r *rig, _ *slowLists) {
			ctx, stop := context.WithCancel(context.Background())
			done := r.attaching(ctx, ref("web", "u2"), addrA)
			synctest.Wait()
			stop()
			<-done
		},
		"an error": func(_ *rig, l *slowLists) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.err = errors.New("away")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, lists := newSlowRig(t)
				r.run()
				if name == "an error" {
					change(r, lists)
				}
				r.api.setPod(pod("web", "u2", "n1"))
				time.Sleep(time.Second)
				if name != "an error" {
					change(r, lists)
				}
				synctest.Wait()
				lists.mu.Lock()
				lists.err, lists.policies = nil, []*networkingv1.NetworkPolicy{deny("late")}
				before := lists.asked
				lists.mu.Unlock()
				done := r.attaching(t.Context(), ref("web", "u2"), addrB)
				time.Sleep(200 * time.Millisecond)
				synctest.Wait()
				wantWaiting(t, done)
				lists.want(t, before+1)
				r.api.setPolicy(deny("late"))
				synctest.Wait()
				wantDone(t, done)
			})
		})
	}
}

// TestAnswerIsForOnePod: a new pod of the same name may have come since the policies
// were asked for.
func TestAnswerIsForOnePod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lists := &slowLists{}
		f := prefetch{ask: lists.list, answers: map[podName]*answer{}}
		f.see(t.Context(), pod("web", "u1", "n1"))
		f.running.Wait()
		if _, ok := f.policies(t.Context(), ref("web", "u2")); ok {
			t.Error("the answer for the former pod counts for the next")
		}
		f.see(t.Context(), pod("web", "u2", "n1"))
		if _, ok := f.policies(t.Context(), ref("web", "u2")); !ok {
			t.Error("the answer for the pod does not count")
		}
		lists.want(t, 2)
	})
}

// TestOnlyPodsToConnectAreForeseen: each question costs the API server something.
func TestOnlyPodsToConnectAreForeseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, lists := newSlowRig(t)
		r.api.setPod(pod("connected", "a", "n1", addrA)) // before this daemon, as its status says
		finished, host, going := pod("finished", "b", "n1"), pod("host", "c", "n1"), pod("going", "d", "n1")
		finished.Finished, host.HostNetwork, going.Deleting = true, true, true
		r.api.setPod(finished)
		r.api.setPod(host)
		r.api.setPod(going)
		r.api.setPod(pod("elsewhere", "e", "n2"))
		r.run()
		time.Sleep(time.Second)
		lists.want(t, 0)
		r.api.setPod(pod("web", "f", "n1"))
		synctest.Wait()
		r.api.setPod(pod("web", "f", "n1")) // as each change of its status does
		time.Sleep(time.Second)
		lists.want(t, 1)
		r.api.deletePod("shop", "web")
		synctest.Wait()
		r.prefetch.mu.Lock()
		defer r.prefetch.mu.Unlock()
		if n := len(r.prefetch.answers); n != 0 {
			t.Errorf("%d answers are kept for pods that are gone", n)
		}
	})
}
