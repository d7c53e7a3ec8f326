// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/bundle"
)

// FileBundle is the signed history of the trusted roots, which nodes follow.
const FileBundle = "bundle.json"

// announce signs which roots are trusted. It is stored together with what it announces.
func (a *Authority) announce(m *material) (err error) {
	m.files[FileBundle], err = bundle.Extend(m.files[FileBundle], m.trusted(), bundle.Signer{
		TrustDomain: a.cfg.TrustDomain, Key: m.issuer(m.roots[0].Raw), Now: a.cfg.Clock(),
	})
	return err
}

// FileRevocations is a copy of the last signed revocation list. Others may be able to
// delete the published one, and the old keys of readmitted nodes are recorded nowhere
// else. It fits: a Secret may hold 1 MiB, and the largest list takes two thirds of that.
const FileRevocations = "revocations.json"

// KeptRevocations returns the last list that was kept, or zero values if there is none or
// its issuer is no longer trusted.
func (a *Authority) KeptRevocations(ctx context.Context) (keymgr.Signed, keymgr.RevocationList, error) {
	stored, err := a.cfg.Store.Load(ctx)
	if err != nil {
		return keymgr.Signed{}, keymgr.RevocationList{}, fmt.Errorf("load revocations: %w", err)
	}
	signed, list := a.readRevocations(stored)
	return signed, list, nil
}

// KeepRevocations keeps a signed list beside the authority's keys, which only the
// controller can write. It fails with ErrConflict if a later list is kept already,
// because then another controller leads.
func (a *Authority) KeepRevocations(ctx context.Context, s keymgr.Signed) error {
	next, err := keymgr.VerifyRevocations(s, a.Bundle(), a.cfg.TrustDomain, a.cfg.Clock())
	if err != nil {
		return fmt.Errorf("keep revocations: %w", err)
	}
	data, err := keymgr.EncodeSigned(s)
	if err != nil {
		return fmt.Errorf("keep revocations: %w", err)
	}
	for range maxConflicts {
		stored, err := a.cfg.Store.Load(ctx)
		if err != nil {
			return fmt.Errorf("keep revocations: %w", err)
		}
		if bytes.Equal(stored.Files[FileRevocations], data) {
			return nil
		}
		_, kept := a.readRevocations(stored)
		if kept.Number > next.Number && keymgr.CheckNumber(kept.Number, a.cfg.Clock()) == nil {
			return fmt.Errorf("keep revocations: list %d: %w: list %d is there", next.Number, ErrConflict, kept.Number)
		}
		files := clone(stored.Files)
		files[FileRevocations] = data
		err = a.cfg.Store.Save(ctx, Stored{Files: files, Version: stored.Version})
		if err == nil {
			return nil
		}
		if !errors.Is(err, ErrConflict) {
			return fmt.Errorf("keep revocations: %w", err)
		}
	}
	return fmt.Errorf("keep revocations: %w, %d times", ErrConflict, maxConflicts)
}

func (a *Authority) readRevocations(stored Stored) (keymgr.Signed, keymgr.RevocationList) {
	signed, err := keymgr.DecodeSigned(stored.Files[FileRevocations])
	if err != nil {
		return keymgr.Signed{}, keymgr.RevocationList{}
	}
	list, err := keymgr.VerifyRevocations(signed, a.Bundle(), a.cfg.TrustDomain, a.cfg.Clock())
	if err != nil {
		return keymgr.Signed{}, keymgr.RevocationList{}
	}
	return signed, list
}
