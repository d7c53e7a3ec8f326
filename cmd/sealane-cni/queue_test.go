// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"testing"

	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/internal/unixsocket"
)

// TestAddOutdatesAQueuedDel: an ADD cancels the queued DEL of the same attachment.
func TestAddOutdatesAQueuedDel(t *testing.T) {
	l := newLab(t)
	queue := cni.Queue{Dir: l.queue}
	for _, id := range []string{"c1", "c2"} {
		l.must(t, "DEL", id, l.network("1.1.0"))
	}
	listener, err := unixsocket.Listen(l.socket) // before the first drain
	if err != nil {
		t.Fatal(err)
	}
	l.serve(t, listener)
	l.must(t, "ADD", "c1", l.network("1.1.0"))
	if n, err := queue.Len(); err != nil || n != 1 {
		t.Errorf("%d queued, %v, want the DEL of c2", n, err)
	}
	if err := queue.Drain(t.Context(), l.handler.Del); err != nil {
		t.Fatal(err)
	}
	if n := len(l.handler.Attachments()); n != 1 {
		t.Errorf("%d connected, want c1", n)
	}
}
