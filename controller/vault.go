// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"context"
	"errors"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/ca"
)

// Vault keeps the last list where only controllers can write.
type Vault interface {
	KeptRevocations(ctx context.Context) (keymgr.Signed, keymgr.RevocationList, error)
	KeepRevocations(ctx context.Context, s keymgr.Signed) error
}

// open starts a term from the list that was kept, so that whoever deletes the
// published one, or puts an older one back, brings no revoked key back.
func (r *revoker) open(ctx context.Context) error {
	if r.opened {
		return nil
	}
	signed, list, err := r.vault.KeptRevocations(ctx)
	if err != nil {
		return err
	}
	r.opened, r.kept = true, list.Number
	if list.Number > r.last.list.Number {
		r.last = published{signed: signed, list: list}
	}
	return nil
}

// keep puts away what is published. It comes after: nodes must not wait for it.
func (r *revoker) keep(ctx context.Context) error {
	if r.kept == r.last.list.Number {
		return nil
	}
	err := r.vault.KeepRevocations(ctx, r.last.signed)
	if errors.Is(err, ca.ErrConflict) {
		r.opened = false // there may be a later list
	}
	if err == nil {
		r.kept = r.last.list.Number
	}
	return err
}
