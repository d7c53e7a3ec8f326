// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package memorystore keeps an authority's files as long as the process lives: for tests and
// simulations.
package memorystore

import (
	"bytes"
	"context"
	"maps"
	"strconv"
	"sync"

	"github.com/sealane/sealane/keymgr/ca"
)

// Store is a ca.Store that lives as long as the process.
type Store struct {
	mu     sync.Mutex // guards all below
	stored ca.Stored
	saves  int
}

// New returns an empty store.
func New() *Store { return &Store{} }

// Load implements ca.Store.
func (m *Store) Load(context.Context) (ca.Stored, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return ca.Stored{Files: clone(m.stored.Files), Version: m.stored.Version}, nil
}

// Save implements ca.Store.
func (m *Store) Save(_ context.Context, next ca.Stored) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if next.Version != m.stored.Version {
		return ca.ErrConflict
	}
	m.saves++
	m.stored = ca.Stored{Files: clone(next.Files), Version: strconv.Itoa(m.saves)}
	return nil
}

// clone returns a copy that can be written into, also of nil.
func clone(files map[string][]byte) map[string][]byte {
	c := maps.Collect(maps.All(files))
	for name, data := range c {
		c[name] = bytes.Clone(data)
	}
	return c
}
