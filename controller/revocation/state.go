// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package revocation

import (
	"maps"
	"sync"

	"github.com/sealane/sealane/keymgr"
)

// State is the revocation list of this term, for the parts of the controller that
// issue certificates and remove NodeKeys. It is safe for concurrent use.
type State struct {
	changed chan struct{} // has room for one value

	mu      sync.Mutex // guards all below
	known   bool
	list    keymgr.RevocationList // as decided, perhaps not published yet
	settled map[string]bool       // by node UID, see Settled
}

// NewState returns a State without a list.
func NewState() *State { return &State{changed: make(chan struct{}, 1)} }

// Changed returns a channel that has a value after more nodes are settled.
func (s *State) Changed() <-chan struct{} { return s.changed }

// Decide sets the list that applies to certificates from now on.
func (s *State) Decide(list keymgr.RevocationList) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list, s.known = list, true
}

// Publish sets the list that every node can read from now on. Unlisted holds, by
// UID, the nodes that are gone and need no entry.
func (s *State) Publish(list keymgr.RevocationList, unlisted map[string]bool) {
	settled := map[string]bool{}
	maps.Copy(settled, unlisted)
	for _, n := range list.Nodes {
		settled[n.UID] = true
	}
	s.mu.Lock()
	news := s.settled == nil || !maps.Equal(s.settled, settled)
	s.list, s.known, s.settled = list, true, settled
	s.mu.Unlock()
	if !news {
		return
	}
	select {
	case s.changed <- struct{}{}:
	default: // a value is waiting already
	}
}

// Current returns the list, which the caller must not change, and whether there is
// one yet. Until there is, nothing can be signed.
func (s *State) Current() (keymgr.RevocationList, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list, s.known
}

// Settled reports whether the identity of a node that is gone is in the published
// list, or need not be. Its NodeKey is then no longer needed as evidence.
func (s *State) Settled(uid string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settled[uid]
}
