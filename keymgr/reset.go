// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"fmt"

	"github.com/sealane/sealane/internal/atomicfile"
)

// Reset makes a new identity after the old one was revoked: another WireGuard key,
// with which none of the old generations stay, another node key that no earlier one
// vouches for, and no certificate yet. The history of statements goes on, so that
// sequence numbers grow. What a crash leaves half done, another Reset does whole:
// the node key, by which it shows, is replaced after all that must not be used again.
func (id *Identity) Reset() error {
	if err := id.keys.replace(); err != nil {
		return fmt.Errorf("reset identity: %w", err)
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	if err := id.resetLocked(); err != nil {
		return fmt.Errorf("reset identity: %w", err)
	}
	return nil
}

func (id *Identity) resetLocked() error {
	for _, name := range []string{fileNextKey, fileContinuity} {
		if err := atomicfile.Remove(id.path(name)); err != nil {
			return err
		}
	}
	id.next, id.links = nil, nil
	key, err := id.createKey(fileKey)
	if err != nil {
		return err
	}
	id.key, id.chain, id.cert = key, nil, nil // if the certificate's file stays, it does not fit the key
	return atomicfile.Remove(id.path(fileCert))
}
