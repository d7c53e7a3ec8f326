// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr/ca"
)

const (
	// minPause and maxPause bound the time to the next pass without news:
	// short after a failure, doubling, and long enough to look after the
	// authority and lost news.
	minPause = time.Second
	maxPause = time.Minute
	// renewPeriod is how often the authority is looked after.
	renewPeriod = time.Minute
	// decidePeriod is how long a pass decides on requests. The next one sees
	// what came meanwhile, well before an agent gives up its request.
	decidePeriod = 5 * time.Second
	// callTimeout bounds what is done for one request or one object.
	callTimeout = 30 * time.Second
)

var (
	errListing    = errors.New("waiting for the first lists of requests, nodes, nodekeys, revocations and the trust bundle")
	errNoRegister = errors.New("waiting to learn which nodes are revoked")
)

// RequestFeed follows the certificate requests.
type RequestFeed interface {
	Changed() <-chan struct{}
	Requests() (all []kube.Request, complete bool)
}

// ClusterFeed follows nodes, NodeKeys and the published bundle.
type ClusterFeed interface {
	Changed() <-chan struct{}
	Snapshot() (s kube.Snapshot, complete bool)
}

// Publisher publishes the trust bundle, and what goes with it.
type Publisher interface {
	PublishTrust(ctx context.Context, t kube.Trust) error
}

// Authority is the certificate authority as the worker sees it.
type Authority interface {
	ca.Issuer
	Renew(ctx context.Context) error
	Advance(ctx context.Context, f ca.Fleet) (moved bool, err error)
	Status() (ca.Status, error)
}

// worker is what the leader does.
type worker struct {
	authority Authority
	requests  RequestFeed
	cluster   ClusterFeed
	publisher Publisher
	signer    *signer
	queue     *queue
	collector *collector
	ledger    *ledger
	health    *health
	metrics   *metrics
	log       *slog.Logger
	clock     func() time.Time
	mode      CAMode

	renewed    time.Time
	wanted     bool   // the offline root is, and was asked for
	badRequest string // for a new root, told already
	// again is when the next pass is due without news: soon if requests are left.
	again time.Duration
}

// run waits until everything is known and makes passes until ctx ends: after news, after a pause when something
// failed, and now and then.
func (w *worker) run(ctx context.Context) {
	w.awaitLists(ctx)
	pause := minPause
	for ctx.Err() == nil {
		err := w.pass(ctx)
		w.health.pass()
		if ctx.Err() != nil {
			return
		}
		w.health.report(err)
		next := w.again
		if err != nil {
			w.metrics.failures.Inc()
			w.log.Warn("pass failed in part and will be repeated", keyError, err)
			pause = min(2*pause, maxPause)
			next = min(pause, max(w.again, minPause)) // no longer than needed if others wait for their turn
		} else {
			pause = minPause
		}
		w.await(ctx, next)
	}
}

// awaitLists returns when everything has been listed once. Until then the
// controller is not ready: a role may be missing, which client-go logs.
func (w *worker) awaitLists(ctx context.Context) {
	for ctx.Err() == nil {
		_, requests := w.requests.Requests()
		_, cluster := w.cluster.Snapshot()
		_, revoked := w.signer.revoked.current()
		w.health.pass()
		if requests && cluster && revoked {
			return
		}
		w.health.report(errListing)
		if requests && cluster {
			w.health.report(errNoRegister)
		}
		w.await(ctx, minPause)
	}
}

// await returns at the next news, or after a pause.
func (w *worker) await(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-w.requests.Changed():
	case <-w.cluster.Changed():
	case <-w.signer.revoked.changed:
	case <-timer.C:
	}
}

// pass looks at everything once. One thing that fails does not keep it from the
// others.
func (w *worker) pass(ctx context.Context) error {
	snapshot, _ := w.cluster.Snapshot()
	return errors.Join(w.renew(ctx), w.advance(ctx, snapshot), w.publish(ctx, snapshot), w.decide(ctx, snapshot), w.collector.collect(ctx, snapshot))
}

// renew lets the authority replace its intermediate when that is due, long
// before it could cut the life of a node certificate short.
func (w *worker) renew(ctx context.Context) error {
	if w.clock().Sub(w.renewed) < renewPeriod {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := w.authority.Renew(ctx); err != nil {
		return err
	}
	status, err := w.authority.Status()
	if err != nil {
		return err
	}
	w.renewed = w.clock()
	w.metrics.authority(status)
	if status.RootWanted && !w.wanted {
		w.log.Error("the intermediate is due and the root's key is offline: bring it back with sealane ca import-root, or replace what was handed in",
			keyUntil, status.Intermediate.NotAfter)
	}
	w.wanted = status.RootWanted
	return nil
}
