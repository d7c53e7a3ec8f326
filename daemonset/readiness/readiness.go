// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package readiness records whether this node can connect pods and what is
// wrong with it now. The daemon's loops report to it; probes, the status report
// and the CNI server read it.
package readiness

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/sealane/sealane/cni"
)

// Part is something that must have worked once before pods are connected.
type Part string

// The parts, as operators see them in status and in CNI errors.
const (
	Node    Part = "node"    // the Node object, with pod ranges
	Keys    Part = "keys"    // the certificate and the published statement
	Policy  Part = "policy"  // policies and services are in the data path
	Network Part = "network" // lanes, routes, masquerade, leak guard
	Pods    Part = "pods"    // this daemon's programs are on the pods of an earlier daemon
)

// State is shared by all loops of the daemon and safe for concurrent use. Pods
// are connected from the first moment that every part has worked. A later fault
// (the API server is away) is shown, but stops no pod.
type State struct {
	connectable chan struct{} // closed when waiting is empty

	mu      sync.Mutex // guards all below
	mtu     int
	waiting map[Part]chan struct{} // parts that have not worked yet; closed when they do
	faults  map[Part]string        // what is wrong now
	revoked bool
}

// New returns a State that waits for the given parts; none: pods can be
// connected at once.
func New(parts ...Part) *State {
	s := &State{waiting: map[Part]chan struct{}{}, faults: map[Part]string{}, connectable: make(chan struct{})}
	for _, p := range parts {
		s.waiting[p], s.faults[p] = make(chan struct{}), "starting"
	}
	if len(parts) == 0 {
		close(s.connectable)
	}
	return s
}

// Report records how a part is doing; nil means that it works.
func (s *State) Report(p Part, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.faults[p] = err.Error()
		return
	}
	delete(s.faults, p)
	worked, ok := s.waiting[p]
	if !ok {
		return
	}
	close(worked)
	delete(s.waiting, p)
	if len(s.waiting) == 0 {
		close(s.connectable)
	}
}

// Await returns nil when each part has worked once, or the error of ctx when ctx
// ends first.
func (s *State) Await(ctx context.Context, parts ...Part) error {
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

// Connectable is closed as soon as pods can be connected.
func (s *State) Connectable() <-chan struct{} { return s.connectable }

// SetMTU sets the MTU of pods' devices, in bytes.
func (s *State) SetMTU(mtu int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mtu = mtu
}

// PodMTU returns the MTU of pods' devices in bytes. As long as pods cannot be
// connected it returns cni.ErrNotReady, with what is still missing.
func (s *State) PodMTU() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return s.mtu, nil
	}
	return 0, fmt.Errorf("%w: %s", cni.ErrNotReady, strings.Join(s.reasonsLocked(), "; "))
}

// Reasons lists what is wrong now, sorted.
func (s *State) Reasons() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reasonsLocked()
}

func (s *State) reasonsLocked() []string {
	var all []string
	for p, why := range s.faults {
		all = append(all, string(p)+": "+why)
	}
	slices.Sort(all)
	return all
}

// Ready reports whether pods can be connected and the node is not revoked.
func (s *State) Ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting) == 0 && !s.revoked
}

// SetRevoked records whether this node is revoked. A revoked node is not ready,
// although its pods still reach each other.
func (s *State) SetRevoked(revoked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoked = revoked
}
