// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package keylock is a lock for each key of a set that nobody has to know in advance.
package keylock

import (
	"context"
	"sync"
)

// Locks has a lock for each key. The zero value is ready; it takes memory only for
// keys that are locked.
type Locks[K comparable] struct {
	mu sync.Mutex // guards held
	// held has a channel for each locked key, which is closed when the key is unlocked.
	held map[K]chan struct{}
}

// Lock waits until nobody else holds key, and holds it until unlock is called, which
// has to be done once. It returns ctx's error, and holds nothing, if ctx ends before.
func (l *Locks[K]) Lock(ctx context.Context, key K) (unlock func(), err error) {
	for {
		other := l.tryLock(key)
		if other == nil {
			return func() { l.unlock(key) }, nil
		}
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// tryLock returns the channel of whoever holds key; nil: the caller does now.
func (l *Locks[K]) tryLock(key K) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if other, busy := l.held[key]; busy {
		return other
	}
	if l.held == nil {
		l.held = map[K]chan struct{}{}
	}
	l.held[key] = make(chan struct{})
	return nil
}

func (l *Locks[K]) unlock(key K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.held[key])
	delete(l.held, key)
}
