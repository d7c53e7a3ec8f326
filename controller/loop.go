// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/sealane/sealane/controller/authority"
	"github.com/sealane/sealane/controller/revocation"
	"github.com/sealane/sealane/controller/signer"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
)

const (
	// minPause and maxPause bound the time to the next pass after one that failed.
	// It doubles with each failure. A pass runs at least once in maxPause, which
	// finds lost notifications and keeps the authority renewed.
	minPause = time.Second
	maxPause = time.Minute
)

// requestFeed follows the certificate requests.
type requestFeed interface {
	Changed() <-chan struct{}
	Requests() (all []kube.Request, complete bool)
}

// clusterFeed follows nodes, NodeKeys and the published bundle.
type clusterFeed interface {
	Changed() <-chan struct{}
	Snapshot() (s cluster.Snapshot, complete bool)
}

// loop is the main loop of the leader. The revoker runs beside it.
type loop struct {
	requests   requestFeed
	cluster    clusterFeed
	revoked    *revocation.State
	maintainer *authority.Maintainer
	signer     *signer.Signer
	collector  *revocation.Collector
	health     *health
	metrics    *metrics
	log        *slog.Logger

	// next is the time to the next pass if nothing changes; zero if requests are left.
	next time.Duration
}

// run waits until everything has been listed once and then makes passes until ctx
// ends: after each change, soon after a pass that failed, and once a minute.
func (l *loop) run(ctx context.Context) {
	l.awaitLists(ctx)
	pause := minPause
	for ctx.Err() == nil {
		err := l.pass(ctx)
		l.health.pass()
		if ctx.Err() != nil {
			return
		}
		l.health.report(err)
		next := l.next
		if err != nil {
			l.metrics.failures.Inc()
			l.log.Warn("part of a pass failed; retrying", keyError, err)
			pause = min(2*pause, maxPause)
			next = min(pause, max(l.next, minPause)) // no longer than needed if requests are left
		} else {
			pause = minPause
		}
		l.await(ctx, next)
	}
}

// awaitLists returns when everything has been listed once. Until then the
// controller is not ready: a role may be missing, which client-go logs.
func (l *loop) awaitLists(ctx context.Context) {
	for ctx.Err() == nil {
		_, requests := l.requests.Requests()
		_, cluster := l.cluster.Snapshot()
		_, revoked := l.revoked.Current()
		l.health.pass()
		if requests && cluster && revoked {
			return
		}
		l.health.report(errListing)
		if requests && cluster {
			l.health.report(signer.ErrRevocationsUnknown)
		}
		l.await(ctx, minPause)
	}
}

// await returns at the next change, or after a pause.
func (l *loop) await(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-l.requests.Changed():
	case <-l.cluster.Changed():
	case <-l.revoked.Changed():
	case <-timer.C:
	}
}

// pass does once all that is due. A part that fails does not keep the others from
// running.
func (l *loop) pass(ctx context.Context) error {
	snapshot, _ := l.cluster.Snapshot()
	maintained := l.maintainer.Pass(ctx, snapshot)
	var signed error
	l.next, signed = l.signer.Pass(ctx, snapshot)
	return errors.Join(maintained, signed, l.collector.Collect(ctx, snapshot))
}
