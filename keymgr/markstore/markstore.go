// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package markstore keeps on disk what a node's verifier remembers: a mark for each other
// node, and the revocation list.
package markstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sealane/sealane/internal/atomicfile"
	"github.com/sealane/sealane/keymgr"
)

const markSuffix = ".json"

// Store is a keymgr.MarkStore with one file per node UID in a directory, and a
// keymgr.RevocationStore.
type Store struct{ dir string }

// New returns a store in dir. The first Save creates dir with mode 0700.
func New(dir string) *Store { return &Store{dir: dir} }

// Load implements keymgr.MarkStore. Files that it cannot read do not hide the others: it
// returns every good record, and an error that names each bad file.
func (m *Store) Load() ([]keymgr.Record, error) {
	entries, err := os.ReadDir(m.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load marks: %w", err)
	}
	var records []keymgr.Record
	var bad []error
	for _, e := range entries {
		uid, ok := strings.CutSuffix(e.Name(), markSuffix)
		if !ok || atomicfile.IsTemp(e.Name()) {
			continue
		}
		r, err := m.read(uid)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		records = append(records, r)
	}
	return records, errors.Join(bad...)
}

func (m *Store) read(uid string) (keymgr.Record, error) {
	path := m.path(uid)
	data, err := os.ReadFile(path)
	if err != nil {
		return keymgr.Record{}, fmt.Errorf("load mark: %w", err)
	}
	var r keymgr.Record
	if err := json.Unmarshal(data, &r); err != nil {
		return keymgr.Record{}, fmt.Errorf("load mark %s: %w: %w", path, keymgr.ErrCorrupt, err)
	}
	if r.ID.UID != uid || r.ID.Validate() != nil {
		return keymgr.Record{}, fmt.Errorf("load mark %s: %w: it is about node %s", path, keymgr.ErrCorrupt, r.ID)
	}
	return r, nil
}

// Save implements keymgr.MarkStore.
func (m *Store) Save(r keymgr.Record) error {
	if err := r.ID.Validate(); err != nil {
		return fmt.Errorf("save mark: %w", err)
	}
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("save mark: %w", err)
	}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return fmt.Errorf("save mark: %w", err)
	}
	return atomicfile.Write(m.path(r.ID.UID), data, 0o600)
}

// Delete implements keymgr.MarkStore.
func (m *Store) Delete(uid string) error { return atomicfile.Remove(m.path(uid)) }

func (m *Store) path(uid string) string { return filepath.Join(m.dir, uid+markSuffix) }

// fileRevocations lies beside the marks. Its suffix keeps it apart from them.
const fileRevocations = "revocations.list"

// LoadRevocations implements keymgr.RevocationStore.
func (m *Store) LoadRevocations() (keymgr.Signed, error) {
	path := filepath.Join(m.dir, fileRevocations)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return keymgr.Signed{}, nil
	}
	if err != nil {
		return keymgr.Signed{}, fmt.Errorf("load revocation list: %w", err)
	}
	s, err := keymgr.DecodeSigned(data)
	if err == nil {
		_, err = keymgr.ParseRevocations(s.Payload)
	}
	if err != nil {
		return keymgr.Signed{}, fmt.Errorf("load revocation list %s: %w: %w (delete it to take the cluster's)", path, keymgr.ErrCorrupt, err)
	}
	return s, nil
}

// SaveRevocations implements keymgr.RevocationStore.
func (m *Store) SaveRevocations(s keymgr.Signed) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("save revocation list: %w", err)
	}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return fmt.Errorf("save revocation list: %w", err)
	}
	return atomicfile.Write(filepath.Join(m.dir, fileRevocations), data, 0o600)
}
