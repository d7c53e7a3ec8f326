// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/sealane/sealane/cni"
)

// part is something that must have worked once before pods are connected.
type part string

// The parts, as operators see them in status and in CNI errors.
const (
	partNode    part = "node"    // the Node object, with pod ranges
	partKeys    part = "keys"    // certificate and published statement
	partPolicy  part = "policy"  // the data path has policies and services
	partNetwork part = "network" // lanes, routes, masquerade, leak guard
	partPods    part = "pods"    // pods of an earlier daemon are guarded again
)

// state is what the loops share: whether pods can be connected, and what is
// wrong now. Pods are connected from the first time that every part has
// worked; a later fault (an API server that is away) is shown, but stops no pod.
type state struct {
	mu      sync.Mutex
	mtu     int
	waiting map[part]chan struct{} // parts that have not worked yet; closed when they do
	faults  map[part]string        // what is wrong now
	ready   chan struct{}          // closed when waiting is empty
	barred  bool                   // the node is revoked
}

func newState(parts ...part) *state {
	s := &state{waiting: map[part]chan struct{}{}, faults: map[part]string{}, ready: make(chan struct{})}
	for _, p := range parts {
		s.waiting[p], s.faults[p] = make(chan struct{}), "starting"
	}
	return s
}

// report says how a part fares; nil is well.
func (s *state) report(p part, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.faults[p] = err.Error()
		return
	}
	delete(s.faults, p)
	if len(s.waiting) == 0 {
		return
	}
	if worked, ok := s.waiting[p]; ok {
		close(worked)
		delete(s.waiting, p)
	}
	if len(s.waiting) == 0 {
		close(s.ready)
	}
}

// await returns when each part has worked once, or when ctx ends.
func (s *state) await(ctx context.Context, parts ...part) error {
	for _, p := range parts {
		s.mu.Lock()
		worked, waiting := s.waiting[p]
		s.mu.Unlock()
		if !waiting {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-worked:
		}
	}
	return nil
}

func (s *state) setMTU(mtu int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mtu = mtu
}

// podMTU gives the MTU of pods' devices, or cni.ErrNotReady with what is
// waited for.
func (s *state) podMTU() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return s.mtu, nil
	}
	return 0, fmt.Errorf("%w: %s", cni.ErrNotReady, strings.Join(s.reasonsLocked(), "; "))
}

// reasons lists what is wrong now, sorted.
func (s *state) reasons() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reasonsLocked()
}

func (s *state) reasonsLocked() []string {
	var all []string
	for p, why := range s.faults {
		all = append(all, string(p)+": "+why)
	}
	slices.Sort(all)
	return all
}

func (s *state) isReady() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting) == 0 && !s.barred
}

// bar says whether the node is revoked: then it is not ready, though its pods still
// reach each other.
func (s *state) bar(barred bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.barred = barred
}
