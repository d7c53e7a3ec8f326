// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca

import (
	"bytes"
	"context"
	"fmt"
	"maps"
)

// shelf keeps an authority's files in two stores. One holds the roots with their keys,
// which an operator may take away. The other holds everything else, and the roots'
// certificates too. After a crash between two writes, the next load understands what is
// there, because keys are added before they are needed and removed after.
type shelf struct {
	main Store
	root Store // nil: all is in main
}

// content is what a shelf has.
type content struct {
	files      map[string][]byte // merged
	main, root Stored
}

func isRootKey(name string) bool { return name == FileRootKey || name == FileNextRootKey }

func isRoot(name string) bool {
	return isRootKey(name) || name == FileRootCert || name == FileNextRootCert
}

// load merges the stores. Certificates in the main store win. Keys in the roots' store win
// if there are any: an older version kept the root's key in the main store.
func (s shelf) load(ctx context.Context) (c content, err error) {
	if c.main, err = s.main.Load(ctx); err != nil {
		return c, fmt.Errorf("load certificate authority: %w", err)
	}
	c.files = clone(c.main.Files)
	if s.root == nil {
		return c, nil
	}
	if c.root, err = s.root.Load(ctx); err != nil {
		return c, fmt.Errorf("load root: %w", err)
	}
	for name, data := range c.root.Files {
		if _, known := c.files[name]; isRootKey(name) || !known {
			c.files[name] = bytes.Clone(data)
		}
	}
	return c, nil
}

// save writes what differs from what was loaded.
func (s shelf) save(ctx context.Context, before content, files map[string][]byte) error {
	main, root := clone(files), map[string][]byte{}
	if s.root == nil {
		return put(ctx, s.main, before.main, main)
	}
	hasKey := false
	for name, data := range files {
		if isRoot(name) {
			root[name] = data
		}
		if isRootKey(name) {
			hasKey = true
			delete(main, name)
		}
	}
	if !hasKey && before.root.Version == "" {
		return put(ctx, s.main, before.main, main) // a root that is handed in has no store
	}
	grown := clone(before.root.Files)
	for name, data := range root {
		if _, known := grown[name]; !known && !holds(grown, data) {
			grown[name] = data
		}
	}
	if err := put(ctx, s.root, before.root, grown); err != nil {
		return err
	}
	if err := put(ctx, s.main, before.main, main); err != nil {
		return err
	}
	return s.tidy(ctx, grown, root)
}

// tidy removes from the roots' store what is no longer needed.
func (s shelf) tidy(ctx context.Context, grown, want map[string][]byte) error {
	if same(grown, want) {
		return nil
	}
	stored, err := s.root.Load(ctx)
	if err != nil {
		return fmt.Errorf("load root: %w", err)
	}
	if !same(stored.Files, grown) {
		return fmt.Errorf("save root: %w", ErrConflict)
	}
	return put(ctx, s.root, stored, want)
}

func put(ctx context.Context, to Store, before Stored, files map[string][]byte) error {
	if same(before.Files, files) {
		return nil
	}
	if err := to.Save(ctx, Stored{Files: files, Version: before.Version}); err != nil {
		return fmt.Errorf("save certificate authority: %w", err)
	}
	return nil
}

// holds reports whether the data are there under any name: a key that only changes its
// name must not appear beside the certificate of another key.
func holds(files map[string][]byte, data []byte) bool {
	for _, have := range files {
		if bytes.Equal(have, data) {
			return true
		}
	}
	return false
}

func same(a, b map[string][]byte) bool { return maps.EqualFunc(a, b, bytes.Equal) }
