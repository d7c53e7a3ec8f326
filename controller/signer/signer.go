// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package signer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/ca"
)

const (
	// Idle is the time to the next pass when no request is left.
	Idle = time.Minute
	// cachePause is the time to the next pass when all pending requests have
	// changed since they were read, which the cache will show soon.
	cachePause = time.Second
	// decidePeriod is how long one pass decides on requests. The next pass sees
	// what came in the meantime, well before an agent gives up its request.
	decidePeriod = 5 * time.Second
	// callTimeout bounds the work on one request.
	callTimeout = 30 * time.Second
)

// Requests lists the certificate requests, as a cache shows them.
type Requests interface {
	Requests() (all []kube.Request, complete bool)
}

// CSRClient writes decisions into requests. Each write fails with
// [kube.ErrConflict] if the request is not the one that was read.
type CSRClient interface {
	ApproveRequest(ctx context.Context, r kube.Request, v kube.Verdict) error
	DenyRequest(ctx context.Context, r kube.Request, v kube.Verdict) error
	FailRequest(ctx context.Context, r kube.Request, v kube.Verdict) error
	AnswerRequest(ctx context.Context, r kube.Request, chain [][]byte) error
}

// LiveReader reads from the API server itself, never from a cache.
type LiveReader interface {
	Node(ctx context.Context, name string) (kube.Node, error)
	Pod(ctx context.Context, namespace, name string) (kube.Pod, error)
	DaemonSetUID(ctx context.Context, name string) (string, error)
}

// EventRecorder creates Events for operators.
type EventRecorder interface {
	Event(ctx context.Context, e kube.EventSpec)
}

// Revocations returns the revocation list, and whether there is one yet. Until
// there is, nothing is signed.
type Revocations interface {
	Current() (list keymgr.RevocationList, known bool)
}

// Config is what a Signer works with. All fields are required.
type Config struct {
	Requests    Requests
	CSRs        CSRClient
	Live        LiveReader
	Events      EventRecorder
	Issuer      ca.Issuer
	Revocations Revocations
	// Policy says what is approved. The signer fills in the DaemonSet's UID.
	Policy  approval.Policy
	Metrics *Metrics
	// Progress is called before each request, as a sign of life.
	Progress func()
	Log      *slog.Logger
	Clock    func() time.Time
}

// Signer answers certificate requests. It belongs to one term of a leader.
type Signer struct {
	Config
	queue        *queue
	history      *history
	certificates certificateCache
}

// New returns a Signer that has decided nothing yet.
func New(cfg Config) *Signer {
	return &Signer{Config: cfg, queue: newQueue(), history: newHistory()}
}

// pass is one pass over the requests.
type pass struct {
	end     time.Time // no request is begun after it
	held    holdings
	decided int
	errs    []error
}

// Pass gives each applicant a turn, as far as the time of one pass allows. An
// applicant that had no turn comes first in the next pass. Pass returns the time
// to that pass if nothing changes: zero as long as requests are left.
func (s *Signer) Pass(ctx context.Context, snapshot cluster.Snapshot) (next time.Duration, err error) {
	all, _ := s.Requests.Requests()
	all = s.queue.refresh(all)
	now := s.Clock()
	s.history.learn(all, now)
	var pending []kube.Request
	for _, r := range all {
		if r.Pending() {
			pending = append(pending, r)
		}
	}
	s.Metrics.pending.Set(float64(len(pending)))
	turns, surplus := s.queue.plan(pending)
	if len(pending) == 0 {
		return Idle, nil
	}
	revoked, _ := s.Revocations.Current()
	p := &pass{end: now.Add(decidePeriod), held: s.certificates.read(snapshot, all, validity{bundle: s.Issuer.Bundle(), now: now, revoked: revoked})}
	s.serve(ctx, p, turns)
	s.dismissAll(ctx, p, surplus)
	return p.next(len(pending)), errors.Join(p.errs...)
}

// next returns the time to the next pass.
func (p *pass) next(pending int) time.Duration {
	switch {
	case p.decided == pending:
		return Idle
	case p.decided > 0:
		return 0
	case len(p.errs) == 0: // all have changed in the meantime
		return cachePause
	}
	return Idle
}

// serve decides on the requests whose turn it is.
func (s *Signer) serve(ctx context.Context, p *pass, turns []kube.Request) {
	for _, r := range turns {
		if !s.Clock().Before(p.end) {
			return
		}
		s.queue.serve(r)
		s.decide(ctx, p, r, func(ctx context.Context, r kube.Request) (kube.Request, error) {
			return s.handle(ctx, r, p.held)
		})
	}
}

// dismissAll refuses the requests of applicants that have too many.
func (s *Signer) dismissAll(ctx context.Context, p *pass, surplus []kube.Request) {
	reported := map[string]bool{}
	for _, r := range surplus {
		if !s.Clock().Before(p.end) {
			return
		}
		first := !reported[applicant(r)]
		reported[applicant(r)] = true
		s.decide(ctx, p, r, func(ctx context.Context, r kube.Request) (kube.Request, error) {
			return s.dismiss(ctx, r, first)
		})
	}
}

// decide runs step on one request. A request that changed or went in the
// meantime is no failure: the next change notification shows how it stands.
func (s *Signer) decide(ctx context.Context, p *pass, r kube.Request, step func(context.Context, kube.Request) (kube.Request, error)) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s.Progress()
	after, err := step(ctx, r)
	switch {
	case errors.Is(err, kube.ErrConflict) || errors.Is(err, kube.ErrNotApproved) || errors.Is(err, kube.ErrNotFound):
		s.Log.Debug("certificate request changed in the meantime", keyRequest, r.Name, keyError, err)
	case err != nil:
		p.errs = append(p.errs, err)
	default:
		p.decided++
		s.queue.decided[r.UID] = after
	}
}

// dismiss refuses a request of an applicant that has too many, without reading
// any facts: refusing a flood must cost less than making one. Only the first
// refusal of an applicant in a pass is reported to the operator.
func (s *Signer) dismiss(ctx context.Context, r kube.Request, report bool) (kube.Request, error) {
	denial := &approval.Denial{Reason: approval.ReasonRateLimit, Message: fmt.Sprintf(
		"more than %d requests of %s are waiting, and newer ones are served first; find out why its agent keeps asking", maxWaiting, r.Username,
	)}
	if report {
		return s.refuse(ctx, r, denial)
	}
	return s.record(ctx, r, denial)
}
