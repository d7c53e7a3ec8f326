// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni

import (
	"context"
	"errors"
	"os"
	"testing"
)

// A daemon may start, listen and drain between the plugin's attempt and its entry in the
// queue: the entry would stay there until the next start.
func TestDelFallsNotBetweenDrainingAndServing(t *testing.T) {
	q := Queue{Dir: t.TempDir()}
	r := Request{Command: CommandDel, ContainerID: "c1", IfName: "eth0"}
	tries := 0
	err := deliverOrQueue(r, q, func() error {
		tries++
		if tries > 1 {
			return nil // the daemon listens now
		}
		err := q.Drain(context.Background(), func(context.Context, Attachment) error {
			t.Error("a request is there before it was queued")
			return nil
		})
		return errors.Join(ErrUnreachable, err)
	})
	if err != nil || tries != 2 {
		t.Errorf("error %v after %d tries, want none after 2", err, tries)
	}
	wantQueued(t, q, 0)
}

func TestDelIsQueuedUnlessItIsDone(t *testing.T) {
	refused := errors.New("device is busy")
	for _, tc := range []struct {
		first, second error
		queued, tries int
	}{
		{nil, nil, 0, 1},
		{ErrUnreachable, nil, 0, 2},
		{ErrUnreachable, ErrUnreachable, 1, 2},
		{ErrInterrupted, nil, 1, 1}, // another attempt would take as long as the first
		{refused, nil, 1, 1},
	} {
		q := Queue{Dir: t.TempDir()}
		tries := 0
		err := deliverOrQueue(Request{Command: CommandDel, ContainerID: "c1", IfName: "eth0"}, q, func() error {
			tries++
			return []error{tc.first, tc.second}[tries-1]
		})
		if tries != tc.tries || (err != nil) != (tc.queued > 0) || err != nil && !errors.Is(err, tc.first) {
			t.Errorf("%v, %v: error %v after %d tries", tc.first, tc.second, err, tries)
		}
		wantQueued(t, q, tc.queued)
	}
}

func wantQueued(t *testing.T, q Queue, want int) {
	t.Helper()
	files, err := os.ReadDir(q.Dir)
	if err != nil || len(files) != want {
		t.Errorf("queue holds %v, %v; want %d", files, err, want)
	}
}
