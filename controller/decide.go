// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"context"
	"errors"
	"fmt"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr/ca"
)

// decide gives each applicant a turn, as far as a pass has time. Whoever had none
// comes first in the next pass, which follows at once as long as requests are left.
func (w *worker) decide(ctx context.Context, s kube.Snapshot) error {
	all, _ := w.requests.Requests()
	all = w.queue.refresh(all)
	now := w.clock()
	w.signer.history.learn(all, now)
	var pending []kube.Request
	for _, r := range all {
		if r.Pending() {
			pending = append(pending, r)
		}
	}
	w.metrics.pending.Set(float64(len(pending)))
	w.again = maxPause
	next, surplus := w.queue.plan(pending)
	if len(pending) == 0 {
		return nil
	}
	owners := w.ledger.owners(s, all, circumstances{bundle: w.authority.Bundle(), now: now})
	t := &tally{}
	end := now.Add(decidePeriod)
	for _, r := range next {
		if !w.clock().Before(end) {
			break
		}
		w.queue.serve(r)
		w.decideOne(ctx, t, r, func(ctx context.Context, r kube.Request) (kube.Request, error) {
			return w.signer.handle(ctx, r, owners)
		})
	}
	told := map[string]bool{}
	for _, r := range surplus {
		if !w.clock().Before(end) {
			break
		}
		first := !told[applicant(r)]
		told[applicant(r)] = true
		w.decideOne(ctx, t, r, func(ctx context.Context, r kube.Request) (kube.Request, error) {
			return w.signer.dismiss(ctx, r, first)
		})
	}
	switch {
	case t.decided == len(pending):
	case t.decided > 0:
		w.again = 0
	case len(t.errs) == 0: // all have changed meanwhile, which the cache will show soon
		w.again = minPause
	}
	return errors.Join(t.errs...)
}

// tally is what came of a pass.
type tally struct {
	decided int
	errs    []error
}

// decideOne is done with a request that changed or went while it was judged: the
// next news shows how it stands.
func (w *worker) decideOne(ctx context.Context, t *tally, r kube.Request, step func(context.Context, kube.Request) (kube.Request, error)) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	w.health.pass()
	after, err := step(ctx, r)
	switch {
	case errors.Is(err, kube.ErrConflict) || errors.Is(err, kube.ErrNotApproved) || errors.Is(err, kube.ErrNotFound):
		w.log.Debug("certificate request changed meanwhile", keyRequest, r.Name, keyError, err)
	case err != nil:
		t.errs = append(t.errs, err)
	default:
		t.decided++
		w.queue.decided[r.UID] = after
	}
}

// dismiss refuses a request of an applicant that has too many, without a look at
// the facts: a flood must cost less to turn away than to make. Of a flood the
// operator is told once in a pass.
func (s *signer) dismiss(ctx context.Context, r kube.Request, tell bool) (kube.Request, error) {
	denial := &ca.Denial{Reason: ca.ReasonRateLimit, Message: fmt.Sprintf(
		"more than %d requests of %s wait, newer ones first; look why its agent asks again", maxWaiting, r.Username)}
	if tell {
		return s.refuse(ctx, r, denial)
	}
	return s.record(ctx, r, denial)
}
