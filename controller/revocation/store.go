// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package revocation

import (
	"context"
	"errors"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/ca"
)

// Store keeps the last list where only controllers can write.
type Store interface {
	KeptRevocations(ctx context.Context) (keymgr.Signed, keymgr.RevocationList, error)
	KeepRevocations(ctx context.Context, s keymgr.Signed) error
}

// loadStored starts a term from the stored list, so that nobody can bring a revoked
// key back by deleting the published list or by replacing it with an older one.
func (r *Revoker) loadStored(ctx context.Context) error {
	if r.loaded {
		return nil
	}
	signed, list, err := r.Store.KeptRevocations(ctx)
	if err != nil {
		return err
	}
	r.loaded, r.storedNumber = true, list.Number
	if list.Number > r.last.list.Number {
		r.last = published{signed: signed, list: list}
	}
	return nil
}

// store saves the published list. It runs after publishing, because nodes must not
// wait for it.
func (r *Revoker) store(ctx context.Context) error {
	if r.storedNumber == r.last.list.Number {
		return nil
	}
	err := r.Store.KeepRevocations(ctx, r.last.signed)
	if errors.Is(err, ca.ErrConflict) {
		r.loaded = false // another controller may have stored a later list
	}
	if err == nil {
		r.storedNumber = r.last.list.Number
	}
	return err
}
