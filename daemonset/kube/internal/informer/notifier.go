// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package informer

import (
	"context"
	"log/slog"
	"sync"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/sealane/sealane/daemonset/kube/internal/conn"
)

// keyError is the key of an error in log attributes.
const keyError = "error"

// Notifier runs informers and turns all that they say into one signal.
type Notifier struct {
	client  kubernetes.Interface // asked only whether it can stream lists
	log     *slog.Logger
	changed chan struct{} // holds at most one signal
	running sync.WaitGroup

	mu      sync.Mutex // guards all below
	pending int        // informers that have not had their first list
	others  []chan<- struct{}
}

// NewNotifier makes a Notifier for feeds from c.
func NewNotifier(c conn.Conn) *Notifier {
	return &Notifier{client: c.Core, log: c.Log, changed: make(chan struct{}, 1)}
}

// Changed receives a value when a snapshot taken earlier may be out of date. Many changes
// are one value.
func (n *Notifier) Changed() <-chan struct{} { return n.changed }

// Wait returns when all goroutines have ended, which they do after the context ends that
// the watch was started with.
func (n *Notifier) Wait() { n.running.Wait() }

// Notify sends to c, too, what Changed receives. c must have room for one value.
func (n *Notifier) Notify(c chan<- struct{}) {
	n.mu.Lock()
	n.others = append(n.others, c)
	n.mu.Unlock()
	n.notify() // what came before c was known
}

func (n *Notifier) notify() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range append(n.others, n.changed) {
		select {
		case c <- struct{}{}:
		default: // the reader has not yet taken the last one
		}
	}
}

// Synced reports whether every feed has had its first list, but for the optional ones.
func (n *Notifier) Synced() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pending == 0
}

// await counts something as not in step until it is done.
func (n *Notifier) await(ctx context.Context, inStep cache.DoneChecker) {
	n.mu.Lock()
	n.pending++
	n.mu.Unlock()
	n.running.Go(func() {
		select {
		case <-inStep.Done():
		case <-ctx.Done():
			return
		}
		n.mu.Lock()
		n.pending--
		n.mu.Unlock()
		n.notify() // an empty list causes no event, but is news
	})
}

// transform wraps a converter so that an object it can convert only in part
// is logged and used as far as it goes: one malformed object must not stop the
// informer for all others.
func (n *Notifier) transform(convert func(any) (any, error)) cache.TransformFunc {
	return func(object any) (any, error) {
		out, err := convert(object)
		if err != nil && out != nil {
			n.log.Warn("object is malformed", keyError, err)
			return out, nil
		}
		return out, err
	}
}
