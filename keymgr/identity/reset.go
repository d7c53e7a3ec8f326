// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package identity

import (
	"fmt"

	"github.com/sealane/sealane/internal/atomicfile"
)

// Reset creates a new identity after the old one was revoked: a new WireGuard key in
// place of all old generations, a new node key that no earlier one vouches for, and no
// certificate yet. The history of statements continues, so that sequence numbers grow.
// If a crash interrupts Reset, call it again: it replaces the node key, by which a reset
// shows, after everything else that must not be used again.
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
