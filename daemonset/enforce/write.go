// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/sealane/sealane/policy"
)

// write writes what changed, or the whole if that is due: at first, and of the
// half that lacks something when it is time to make up for it. It returns the
// guards that it set, and whether it wrote anything.
func (e *Enforcer) write() (guards map[netip.Addr]policy.Guard, wrote bool) {
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
	return steps[0].Set.Guards, wrotePolicies || wroteServices
}

// changes returns what the compiler made of what it was told, with the guards of
// addresses that are nobody's. There is at least one step; the first has all guards.
func (e *Enforcer) changes() []policy.Changes {
	steps := e.compiler.Changes()
	if len(steps) == 0 {
		steps = []policy.Changes{{}}
	}
	c := &steps[0]
	if c.Set.Guards == nil {
		c.Set.Guards = map[netip.Addr]policy.Guard{}
	}
	for a := range e.loose {
		_, given := c.Set.Guards[a]
		switch nobodys := e.book.nobodys(a); {
		case nobodys && !e.extras[a]:
			e.extras[a] = true
			c.Set.Guards[a] = policy.Guard{}
			c.Removed.Guards = slices.DeleteFunc(c.Removed.Guards, func(b netip.Addr) bool { return a == b })
		case !nobodys && e.extras[a]:
			delete(e.extras, a)
			if !given {
				c.Removed.Guards = append(c.Removed.Guards, a)
			}
		}
	}
	clear(e.loose)
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

// backoff spaces attempts: each pause is double the last one, up to maxRetry.
type backoff struct {
	first, pause time.Duration
	timer        *time.Timer // of the pause that runs; nil if none does
	over         bool        // a pause has ended
}

// due has a value when the pause ends.
func (b *backoff) due() <-chan time.Time {
	if b.timer == nil {
		return nil
	}
	return b.timer.C
}

// expired notes that the pause has ended.
func (b *backoff) expired() { b.timer, b.over = nil, true }

// plan begins a pause unless one runs. Its second half is random, so that the
// nodes of a cluster do not try in step.
func (b *backoff) plan() {
	if b.timer == nil {
		b.pause = min(max(b.first, 2*b.pause), maxRetry)
		b.timer = time.NewTimer(b.pause/2 + rand.N(b.pause/2+1))
	}
}

func (b *backoff) stop() {
	if b.timer != nil {
		b.timer.Stop()
	}
	b.timer, b.pause = nil, 0
}
