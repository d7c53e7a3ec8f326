// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package keylock provides a lock for each key; the keys need not be known in advance.
package keylock

import (
	"context"
	"sync"
)

// Locks has a lock for each key. The zero value is ready to use; only locked keys take
// memory.
type Locks[K comparable] struct {
	mu sync.Mutex // guards held
	// held has a channel for each locked key; unlocking the key closes the channel.
	held map[K]chan struct{}
}

// Lock waits until nobody else holds key, and then holds it until unlock is called, which
// must happen exactly once. If ctx ends first, Lock returns the error of ctx and holds
// nothing.
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

// tryLock returns the channel of the present holder of key, or nil if the caller holds it
// now.
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
