// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keylock_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealane/sealane/internal/keylock"
)

func TestOneHolderPerKey(t *testing.T) {
	var locks keylock.Locks[string]
	var running sync.WaitGroup
	counts := map[string]*int{"a": new(int), "b": new(int)} // guarded by the key's lock
	for range 100 {
		for key, n := range counts {
			running.Go(func() {
				unlock, err := locks.Lock(t.Context(), key)
				if err != nil {
					t.Error(err)
					return
				}
				defer unlock()
				*n++
			})
		}
	}
	running.Wait()
	for key, n := range counts {
		if *n != 100 {
			t.Errorf("%d holders of %s were counted, want 100", *n, key)
		}
	}
}

func TestWaitsForItsKeyOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var locks keylock.Locks[int]
		unlock, err := locks.Lock(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if other, err := locks.Lock(t.Context(), 2); err != nil {
			t.Errorf("another key: %v", err)
		} else {
			other()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := locks.Lock(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a key that is held: %v, want that the time is over", err)
		}
		time.AfterFunc(time.Second, unlock)
		again, err := locks.Lock(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		again()
	})
}
