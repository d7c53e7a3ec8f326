// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// entries reads a whole map in batches. While programs write to the map, it misses no entry
// that is present all the time.
func entries[K comparable, V any](m *ebpf.Map) (map[K]V, error) {
	const atOnce = 4096
	all, keys, values := map[K]V{}, make([]K, atOnce), make([]V, atOnce)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			all[keys[i]] = values[i]
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return all, nil // that was the last
		}
		if err != nil {
			return nil, err
		}
	}
}

// writer writes to maps and continues after an error; it keeps the first error and counts
// the others.
type writer struct {
	first error
	more  int
}

func (w *writer) note(m *ebpf.Map, verb string, k any, err error) {
	if errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM) {
		err = fmt.Errorf("%w (%w)", ErrFull, err)
	}
	if w.first == nil {
		w.first = fmt.Errorf("%s %v in %s: %w", verb, k, m, err)
		return
	}
	w.more++
}

func (w *writer) put(m *ebpf.Map, k, v any) bool {
	err := m.Put(k, v)
	if err != nil {
		w.note(m, "write", k, err)
	}
	return err == nil
}

// replace writes an entry. In a full trie, kernels up to 6.12 have no room even for an entry
// that replaces another.
func (w *writer) replace(m *ebpf.Map, k, v any) {
	if err := m.Put(k, v); errors.Is(err, unix.ENOSPC) {
		w.remove(m, k)
	} else if err == nil {
		return
	}
	w.put(m, k, v)
}

func (w *writer) remove(m *ebpf.Map, k any) {
	if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		w.note(m, "remove", k, err)
	}
}

func (w *writer) err() error {
	if w.more > 0 {
		return fmt.Errorf("%w, and %d more", w.first, w.more)
	}
	return w.first
}
