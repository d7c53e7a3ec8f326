// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package pinned pins maps a second time, under other names: an upgraded daemon takes over
// the maps of an earlier version that named them otherwise.
package pinned

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/cilium/ebpf"
)

// Adopt pins the maps of the folder from in the folder to as well, where their name is
// still free. names maps each new name to the old one.
//
// It reports whether both folders hold the very same maps, with none of names missing.
func Adopt(from, to string, names map[string]string) (bool, error) {
	all := true
	for name, before := range names {
		same, err := adopt(filepath.Join(from, before), filepath.Join(to, name))
		if err != nil {
			return false, fmt.Errorf("take over map %s as %s: %w", before, name, err)
		}
		all = all && same
	}
	return all, nil
}

func adopt(from, to string) (bool, error) {
	old, err := ebpf.LoadPinnedMap(from, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer old.Close()
	now, err := ebpf.LoadPinnedMap(to, nil)
	if err == nil {
		defer now.Close()
		return equal(old, now)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	second, err := old.Clone() // pinning the first would move its pin
	if err != nil {
		return false, err
	}
	return true, errors.Join(second.Pin(to), second.Close())
}

// equal reports whether a and b are the same map.
func equal(a, b *ebpf.Map) (bool, error) {
	one, err1 := a.Info()
	other, err2 := b.Info()
	if err := errors.Join(err1, err2); err != nil {
		return false, err
	}
	id1, _ := one.ID()
	id2, _ := other.ID()
	return id1 == id2, nil
}
