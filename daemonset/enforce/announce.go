// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
)

const (
	// announcePause and announcePauseMax bound the pause after an announcement: pods
	// that are connected within it share the next. Between these it is so many
	// (announceShare) times as long as the announcement took. A busy API server, and a
	// long list, are so given time for what else they have to do, such as to show us the
	// next pod; without that, a hundred pods made the last of them wait for the news of
	// the first.
	announcePause    = 50 * time.Millisecond
	announcePauseMax = 500 * time.Millisecond
	announceShare    = 20
	// tidyAfter is how long what every node knows better by now may stay announced:
	// taking it back is news to all nodes as well, and the next pod does it for nothing.
	tidyAfter = 30 * time.Second
)

// announce brings the announcer's list up to date: the pods of this node whose
// addresses the API does not tell yet, by name. Only what is dirty can have changed.
func (e *Enforcer) announce() {
	changed := !e.begun
	for name := range e.dirtyPods {
		if e.unannounced[name] {
			changed = true
			if len(e.index.pods[name]) == 0 || e.isPublished(name) {
				delete(e.unannounced, name)
			}
		}
	}
	if !changed {
		return
	}
	all := make([]kube.AddressedPod, 0, len(e.unannounced))
	for _, name := range slices.SortedFunc(maps.Keys(e.unannounced), comparePods) {
		addresses := e.index.pods[name]
		all = append(all, kube.AddressedPod{
			Namespace: name.namespace, Name: name.name, UID: e.index.owners[addresses[0]].UID, Addresses: slices.Clone(addresses),
		})
	}
	e.announcer.update(all)
}

// isPublished reports whether the API shows the addresses of a pod of this node, or that
// nobody needs to know them any more.
func (e *Enforcer) isPublished(name podName) bool {
	o, ok := e.cfg.Objects.Pod(name.namespace, name.name)
	shown := o.Finished || len(o.Addresses) > 0 && !o.Announced
	return ok && shown && len(e.index.addresses(o)) > 0
}

func comparePods(a, b podName) int {
	return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name))
}

// announcer tells the other nodes of the newcomers of this one.
type announcer struct {
	tell func(context.Context, []kube.AddressedPod) error
	log  *slog.Logger
	news chan []kube.AddressedPod // the last list, if run has not taken it

	// What follows is run's alone.
	want, have []kube.AddressedPod
	uncertain  bool      // have may not be what the API server has
	next       time.Time // not to announce again before
	retry      retryTimer
}

func newAnnouncer(cfg Config) *announcer {
	return &announcer{
		tell: cfg.Announce, log: cfg.Logger, news: make(chan []kube.AddressedPod, 1),
		uncertain: true, // an earlier daemon may have announced pods that are gone
		retry:     newRetryTimer(cfg),
	}
}

// update takes a list, which replaces the one before.
func (a *announcer) update(list []kube.AddressedPod) {
	select {
	case <-a.news:
	default:
	}
	a.news <- list
}

// run announces until ctx ends: at once what is new, later what is over.
func (a *announcer) run(ctx context.Context) {
	due := time.NewTimer(0)
	due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case a.want = <-a.news:
		case <-due.C:
			a.speak(ctx)
		case <-a.retry.due():
			a.retry.expired()
			a.speak(ctx)
		}
		due.Stop()
		if wait, some := a.wait(); some {
			due.Reset(wait)
		}
	}
}

// wait returns the time until there is something to be announced, if there is. What
// failed has its own time.
func (a *announcer) wait() (time.Duration, bool) {
	switch pause := time.Until(a.next); {
	case a.retry.due() != nil:
		return 0, false
	case a.uncertain, len(kube.Beyond(a.want, a.have)) > 0:
		return max(0, pause), true
	default:
		return tidyAfter, len(a.want) < len(a.have)
	}
}

func (a *announcer) speak(ctx context.Context) {
	began := time.Now()
	err := a.tell(ctx, a.want)
	now := time.Now()
	a.next = now.Add(min(max(announcePause, announceShare*now.Sub(began)), announcePauseMax))
	a.have, a.uncertain = a.want, err != nil
	if err == nil {
		a.retry.stop()
		return
	}
	a.retry.plan()
	if ctx.Err() == nil {
		a.log.Warn("new pods are not announced, will be tried again: on other nodes policies may hold up their first connections", "pods", len(a.want), "error", err)
	}
}
