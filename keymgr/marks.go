// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sealane/sealane/internal/atomicfile"
)

const markSuffix = ".json"

// FileMarks is a MarkStore with one file per node UID in a directory.
type FileMarks struct{ dir string }

// NewFileMarks returns a store in dir. The first Save creates dir with mode 0700.
func NewFileMarks(dir string) *FileMarks { return &FileMarks{dir: dir} }

// Load implements MarkStore. Files that it cannot read do not hide the others: it
// returns every good record, and an error that names each bad file.
func (f *FileMarks) Load() ([]Record, error) {
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load marks: %w", err)
	}
	var records []Record
	var bad []error
	for _, e := range entries {
		uid, ok := strings.CutSuffix(e.Name(), markSuffix)
		if !ok || atomicfile.IsTemp(e.Name()) {
			continue
		}
		r, err := f.read(uid)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		records = append(records, r)
	}
	return records, errors.Join(bad...)
}

func (f *FileMarks) read(uid string) (Record, error) {
	path := f.path(uid)
	data, err := os.ReadFile(path)
	if err != nil {
		return Record{}, fmt.Errorf("load mark: %w", err)
	}
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return Record{}, fmt.Errorf("load mark %s: %w: %w", path, ErrCorrupt, err)
	}
	if r.ID.UID != uid || r.ID.Validate() != nil {
		return Record{}, fmt.Errorf("load mark %s: %w: it is about node %s", path, ErrCorrupt, r.ID)
	}
	return r, nil
}

// Save implements MarkStore.
func (f *FileMarks) Save(r Record) error {
	if err := r.ID.Validate(); err != nil {
		return fmt.Errorf("save mark: %w", err)
	}
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("save mark: %w", err)
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return fmt.Errorf("save mark: %w", err)
	}
	return atomicfile.Write(f.path(r.ID.UID), data, 0o600)
}

// Delete implements MarkStore.
func (f *FileMarks) Delete(uid string) error { return atomicfile.Remove(f.path(uid)) }

func (f *FileMarks) path(uid string) string { return filepath.Join(f.dir, uid+markSuffix) }
