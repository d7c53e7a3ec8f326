// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package trust

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/bundle"
	"github.com/sealane/sealane/keymgr/identity"
)

// rootWatcher follows the published trust bundle. What it refuses waits: the roots before
// stay in force, and each pass judges again.
type rootWatcher struct {
	identity    *identity.Identity
	verifier    *keymgr.Verifier
	trustDomain string
	accepted    []keymgr.Hash // roots that the operator vouches for
	clock       func() time.Time

	followed string // bundle and history that are in force; only follow uses it
	roots    []byte // in force, PEM; the same

	mu       sync.Mutex // guards all below
	refused  error      // why the published bundle is not in force; nil: it is
	reported string     // the refusal that was returned by news last
}

// follow puts the published bundle into force if it is vouched for, and returns the bundle in
// force (PEM), empty if there never was one. An error means that this node's disk fails.
func (r *rootWatcher) follow(t cluster.Trust) ([]byte, error) {
	key := string(t.Bundle) + "\x00" + string(t.History)
	if r.followed == key && len(r.roots) > 0 {
		return r.roots, nil
	}
	stored, err := r.identity.Bundle()
	if err != nil {
		return nil, fmt.Errorf("read trust bundle: %w", err)
	}
	have := bundle.Trusted{Number: r.identity.BundleNumber()}
	if have.Roots, err = keymgr.ParseBundle(stored); err != nil {
		have, stored = bundle.Trusted{}, nil // none, or a file that is of no use
	}
	if len(t.Bundle) == 0 {
		r.set(nil) // gone, or not there yet: nobody asks for anything
		return r.use(stored, "")
	}
	got, err := r.take(have, t)
	if r.set(err); err != nil {
		return r.use(stored, "")
	}
	if err := errors.Join(r.identity.SaveBundle(t.Bundle), r.identity.SaveBundleNumber(got.Number)); err != nil {
		return nil, fmt.Errorf("keep trust bundle: %w", err)
	}
	return r.use(t.Bundle, key)
}

func (r *rootWatcher) take(have bundle.Trusted, t cluster.Trust) (bundle.Trusted, error) {
	roots, err := keymgr.ParseBundle(t.Bundle)
	if err != nil {
		return have, err
	}
	history, parseErr := bundle.Parse(t.History)
	reader := bundle.Reader{TrustDomain: r.trustDomain, Now: r.clock(), Accepted: r.accepted}
	got, err := reader.Take(have, bundle.Published{Roots: roots, History: history})
	if err != nil {
		return got, errors.Join(err, parseErr)
	}
	return got, nil
}

// use makes the verifier trust the roots.
func (r *rootWatcher) use(roots []byte, key string) ([]byte, error) {
	r.roots, r.followed = roots, key
	if len(roots) == 0 {
		return nil, nil
	}
	return roots, r.verifier.SetRoots(roots)
}

func (r *rootWatcher) set(refused error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused = refused
}

// news returns a refusal that it has not returned before.
func (r *rootWatcher) news() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refused == nil {
		r.reported = ""
		return nil
	}
	if r.reported == r.refused.Error() {
		return nil
	}
	r.reported = r.refused.Error()
	return r.refused
}

// pending returns why the published bundle is not in force, "" if it is.
func (r *rootWatcher) pending() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refused == nil {
		return ""
	}
	return r.refused.Error()
}
