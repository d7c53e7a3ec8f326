// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"context"
	"sync"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/daemonset/kube/objects"
)

// prefetchLife is how old an answer may get before the pod is connected. What has
// been made since is the watch's to bring, as at any other time.
const prefetchLife = 30 * time.Second

// prefetch asks which policies a pod has to wait for as soon as the watch shows the
// pod, long before its runtime comes to connect it. The API server takes up to 100 ms
// for an answer in which nothing is older than the question: its watch cache asks
// etcd ten times a second how far it has got (KEP-2340).
type prefetch struct {
	ask func(ctx context.Context, namespace string) ([]*networkingv1.NetworkPolicy, error) // nil: nobody can say

	running sync.WaitGroup
	mu      sync.Mutex // guards answers
	answers map[podName]*answer
}

// answer is what has been asked for a pod. What the API server has said may be read
// once done is closed.
type answer struct {
	pod      objects.Pod
	asked    time.Time
	taken    bool // has served
	done     chan struct{}
	policies []*networkingv1.NetworkPolicy
	err      error
}

// see asks for a pod, once.
func (f *prefetch) see(ctx context.Context, o objects.Pod) {
	if f.ask == nil {
		return
	}
	name := podName{o.Namespace, o.Name}
	f.mu.Lock()
	defer f.mu.Unlock()
	if a := f.answers[name]; a != nil && a.pod.UID == o.UID {
		return
	}
	a := &answer{pod: o, asked: time.Now(), done: make(chan struct{})}
	f.answers[name] = a
	f.running.Go(func() {
		defer close(a.done)
		a.policies, a.err = f.ask(ctx, o.Namespace)
	})
}

// forget drops what was asked for a pod that is not to be connected any more.
func (f *prefetch) forget(name podName) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.answers, name)
}

func (f *prefetch) take(pod cni.PodRef) *answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.answers[nameOf(pod)]
	if a == nil || a.taken || !same(pod, a.pod) || time.Since(a.asked) > prefetchLife {
		return nil
	}
	a.taken = true
	return a
}

// policies waits for the answer for a pod. Not ok: nobody has asked, or it is not to
// be relied on; then the caller asks. An answer is good for one question.
func (f *prefetch) policies(ctx context.Context, pod cni.PodRef) (all []*networkingv1.NetworkPolicy, ok bool) {
	a := f.take(pod)
	if a == nil {
		return nil, false
	}
	select {
	case <-a.done:
		return a.policies, a.err == nil
	case <-ctx.Done():
		return nil, false
	}
}
