// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"slices"
	"time"

	"github.com/sealane/sealane/daemonset/status"
)

// Status tells how policies and services fare on this node.
func (e *Enforcer) Status() status.Enforcement {
	e.mu.Lock()
	defer e.mu.Unlock()
	shown := e.shown
	shown.Delay.Counts = slices.Clone(shown.Delay.Counts)
	return shown
}

// counted counts a call of the data path.
func (e *Enforcer) counted(err error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.shown.Writes++
	if err != nil {
		e.shown.FailedWrites++
	}
	return err
}

// show publishes what a pass made: since when what it wrote was to be written,
// and when it began to be; zero: it wrote nothing.
func (e *Enforcer) show(since, began time.Time) {
	refused := e.cfg.Refused()
	e.mu.Lock()
	defer e.mu.Unlock()
	s := &e.shown
	s.Enforcing, s.Problem = true, e.problem
	s.Identities, s.Blocks, s.EndpointPolicies = len(e.tables.Identities), len(e.tables.Blocks), len(e.tables.Endpoints)
	s.Sets, s.Rules, s.PortSets = len(e.tables.Sets), len(e.tables.Rules), len(e.tables.Ports)
	s.Frontends, s.Backends = len(e.services.all), e.services.backends
	s.Waiting, s.RefusedPods = len(e.waiting)+len(e.retrying), refused
	if began.IsZero() {
		return
	}
	s.Written = time.Now()
	s.LastWrite = s.Written.Sub(began).Seconds()
	if !since.IsZero() {
		s.Delay.Observe(s.Written.Sub(since).Seconds())
	}
}
