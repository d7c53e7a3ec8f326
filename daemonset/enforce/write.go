// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sealane/sealane/internal/backoff"
	"github.com/sealane/sealane/policy"
)

// write writes what changed. It writes everything the first time, and rewrites in full the half
// (policies or services) whose last write failed, when its pause has ended. It returns the endpoint
// policies that it set, and whether it wrote anything.
func (e *Enforcer) write() (endpoints map[netip.Addr]policy.EndpointPolicy, wrote bool) {
	first, again := !e.begun, e.retry.over
	e.begun, e.retry.over = true, false
	steps := e.changes()
	for _, c := range steps {
		e.tables.Apply(c)
	}
	wrotePolicies := e.writePolicies(steps, first || again && e.policyErr != nil)
	wroteServices := e.writeServices(first || again && e.serviceErr != nil)
	if e.policyErr == nil && e.serviceErr == nil {
		e.retry.stop()
	} else {
		e.retry.plan()
	}
	return steps[0].Set.Endpoints, wrotePolicies || wroteServices
}

// changes returns what the compiler made of what it was told, with the endpoint
// policies of addresses that have no pod. There is at least one step; the first has all endpoint
// policies.
func (e *Enforcer) changes() []policy.Changes {
	steps := e.compiler.Changes()
	if len(steps) == 0 {
		steps = []policy.Changes{{}}
	}
	c := &steps[0]
	if c.Set.Endpoints == nil {
		c.Set.Endpoints = map[netip.Addr]policy.EndpointPolicy{}
	}
	for a := range e.dirtyAddresses {
		_, given := c.Set.Endpoints[a]
		switch nobodys := e.index.nobodys(a); {
		case nobodys && !e.unowned[a]:
			e.unowned[a] = true
			c.Set.Endpoints[a] = policy.EndpointPolicy{}
			c.Removed.Endpoints = slices.DeleteFunc(c.Removed.Endpoints, func(b netip.Addr) bool { return a == b })
		case !nobodys && e.unowned[a]:
			delete(e.unowned, a)
			if !given {
				c.Removed.Endpoints = append(c.Removed.Endpoints, a)
			}
		}
	}
	clear(e.dirtyAddresses)
	return steps
}

// writePolicies leaves in policyErr what the data path lacks. Only writing the
// whole makes up for it.
func (e *Enforcer) writePolicies(steps []policy.Changes, whole bool) (wrote bool) {
	e.lastErr = nil
	if whole {
		e.lastErr = e.counted(e.cfg.Datapath.SyncPolicy(e.tables))
		e.policyErr = e.lastErr
		return true
	}
	for _, c := range steps {
		if c.Len() == 0 {
			continue
		}
		wrote = true
		if err := e.counted(e.cfg.Datapath.ApplyPolicy(c)); err != nil {
			e.lastErr, e.policyErr = err, err
			break
		}
	}
	return wrote
}

func (e *Enforcer) writeServices(whole bool) (wrote bool) {
	set, removed := e.services.take()
	switch {
	case whole:
		e.serviceErr = e.counted(e.cfg.Datapath.SyncServices(e.services.all))
	case len(set)+len(removed) > 0:
		if err := e.counted(e.cfg.Datapath.ApplyServices(set, removed)); err != nil {
			e.serviceErr = err
		}
	default:
		return false
	}
	return true
}

// report tells what is wrong, if that is something else than before.
func (e *Enforcer) report() {
	var errs []error
	if e.policyErr != nil {
		errs = append(errs, fmt.Errorf("policies are not all in the data path, what is missing is denied: %w", e.policyErr))
	}
	if e.serviceErr != nil {
		errs = append(errs, fmt.Errorf("services are not all in the data path, kube-proxy serves the rest: %w", e.serviceErr))
	}
	err := errors.Join(append(errs, e.compiler.Err())...)
	var problem string
	if err != nil {
		problem = err.Error()
	}
	if problem == e.problem {
		return
	}
	e.problem = problem
	if err != nil {
		e.cfg.Logger.Error("enforcement is incomplete", "error", err)
	} else {
		e.cfg.Logger.Info("enforcement is complete")
	}
	e.cfg.Report(err)
}

// retryTimer spaces attempts.
type retryTimer struct {
	pauses backoff.Backoff
	timer  *time.Timer // of the pause that runs; nil if none does
	over   bool        // a pause has ended
}

func newRetryTimer(cfg Config) retryTimer {
	return retryTimer{pauses: backoff.Backoff{First: cfg.RetryAfter, Max: maxRetry}}
}

// due has a value when the pause ends.
func (b *retryTimer) due() <-chan time.Time {
	if b.timer == nil {
		return nil
	}
	return b.timer.C
}

// expired notes that the pause has ended.
func (b *retryTimer) expired() { b.timer, b.over = nil, true }

// plan begins a pause unless one runs.
func (b *retryTimer) plan() {
	if b.timer == nil {
		b.timer = time.NewTimer(backoff.Jitter(b.pauses.Next()))
	}
}

func (b *retryTimer) stop() {
	if b.timer != nil {
		b.timer.Stop()
	}
	b.timer = nil
	b.pauses.Reset()
}
