// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"maps"
	"sync"

	"github.com/sealane/sealane/keymgr"
)

// register is the revocation list, for those who decide on certificates and on
// what may be removed.
type register struct {
	// changed has a value after publish, for whoever waits for that.
	changed chan struct{}

	mu      sync.Mutex // guards all below
	known   bool
	list    keymgr.RevocationList // as decided
	settled map[string]bool       // by UID: see isSettled
}

func newRegister() *register { return &register{changed: make(chan struct{}, 1)} }

// decide says what is revoked from now on.
func (r *register) decide(list keymgr.RevocationList) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list, r.known = list, true
}

// publish says what every node can know from now on, and which nodes that are gone
// need no entry.
func (r *register) publish(list keymgr.RevocationList, dead map[string]bool) {
	settled := map[string]bool{}
	maps.Copy(settled, dead)
	for _, n := range list.Nodes {
		settled[n.UID] = true
	}
	r.mu.Lock()
	news := r.settled == nil || !maps.Equal(r.settled, settled)
	r.list, r.known, r.settled = list, true, settled
	r.mu.Unlock()
	if !news {
		return
	}
	select {
	case r.changed <- struct{}{}:
	default: // one is waiting already
	}
}

// current returns the list, which nobody may change, and whether there is one yet:
// before that, nothing can be signed.
func (r *register) current() (keymgr.RevocationList, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list, r.known
}

// isSettled tells whether the identity of a node that is gone is in the published
// list, or need not be, so that its NodeKey is evidence of nothing any more.
func (r *register) isSettled(uid string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.settled[uid]
}
