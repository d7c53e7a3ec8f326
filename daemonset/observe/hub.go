// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package observe

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Source is the data path.
type Source interface {
	// Watch calls f with each flow until ctx ends. Only one caller at a time.
	Watch(ctx context.Context, f func(Flow)) error
}

// Hub hands flows to all readers. See NewHub.
type Hub struct {
	source Source
	log    *slog.Logger
	wake   chan struct{} // holds at most one signal

	mu      sync.Mutex // guards what follows
	readers map[*reader]bool
	stop    context.CancelFunc // ends the current Watch of the source; nil: none runs
}

// reader is one client of a Hub.
type reader struct {
	filter Filter
	flows  chan Flow
	lost   atomic.Uint64
	failed chan error // has a value when the source has failed
}

// backlog is the number of flows that a reader may lag behind.
const backlog = 4096

// NewHub returns a Hub, which watches nothing until Run is called.
func NewHub(source Source, log *slog.Logger) *Hub {
	return &Hub{source: source, log: log, wake: make(chan struct{}, 1), readers: map[*reader]bool{}}
}

// Run watches the source whenever somebody reads, until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.wake:
		}
		for h.watch(ctx) {
		}
	}
}

// watch watches until the last reader has gone; it says whether others have come
// since.
func (h *Hub) watch(ctx context.Context) (again bool) {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	h.mu.Lock()
	wanted := len(h.readers) > 0
	if wanted {
		h.stop = stop
	}
	h.mu.Unlock()
	if !wanted || ctx.Err() != nil {
		return false
	}
	err := h.source.Watch(watching, h.hand)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stop = nil
	if watching.Err() == nil { // it has ended by itself
		h.log.Error("verdicts cannot be watched", "error", err)
		for r := range h.readers {
			r.failed <- errors.Join(errEnded, err)
			delete(h.readers, r)
		}
	}
	return len(h.readers) > 0
}

// errEnded is a source that has ended before it was asked to.
var errEnded = errors.New("the data path reports no verdicts any more")

// hand gives a flow to each reader that may want it, and waits for none.
func (h *Hub) hand(f Flow) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for r := range h.readers {
		r.lost.Add(f.Lost)
		if !r.filter.takes(f) {
			continue
		}
		select {
		case r.flows <- f:
		default:
			r.lost.Add(1)
		}
	}
}

func (h *Hub) join(f Filter) *reader {
	r := &reader{filter: f, flows: make(chan Flow, backlog), failed: make(chan error, 1)}
	h.mu.Lock()
	h.readers[r] = true
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default: // Run has not taken the last one
	}
	return r
}

func (h *Hub) leave(r *reader) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.readers, r)
	if len(h.readers) == 0 && h.stop != nil {
		h.stop()
	}
}

// Read calls write with the records that pass a filter, until ctx ends, write
// fails or the source does. While write takes its time flows are lost; the next
// record says how many.
func (h *Hub) Read(ctx context.Context, o *Observer, f Filter, write func(Record) error) error {
	r := h.join(f)
	defer h.leave(r)
	if err := write(Record{Time: time.Now(), Node: o.Node, Begun: true}); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-r.failed:
			return err
		case flow := <-r.flows:
			if err := r.show(o, flow, write); err != nil {
				return err
			}
		}
	}
}

func (r *reader) show(o *Observer, flow Flow, write func(Record) error) error {
	if lost := r.lost.Swap(0); lost > 0 {
		if err := write(Record{Time: time.Now(), Node: o.Node, Lost: lost}); err != nil {
			return err
		}
	}
	record := o.identify(flow)
	if !r.filter.wants(record) {
		return nil
	}
	o.decide(flow, &record)
	return write(record)
}
