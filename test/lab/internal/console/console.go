// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package console tells the person at the terminal what the lab is doing and how long it takes.
package console

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// Beat is how often a long step says that it is still at work.
const Beat = 20 * time.Second

// Console prints lines that begin with the seconds since its creation. It may be used from several goroutines.
type Console struct {
	mu    sync.Mutex
	out   io.Writer
	start time.Time
	beat  time.Duration
}

// New returns a console that writes to out.
func New(out io.Writer) *Console {
	return &Console{out: out, start: time.Now(), beat: Beat}
}

// Say prints one line.
func (c *Console) Say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.out, "%4ds  %s\n", int(time.Since(c.start).Seconds()), fmt.Sprintf(format, args...))
}

// Step runs do and prints when it ended and how long it took; a line every [Beat] shows that it is alive.
func (c *Console) Step(ctx context.Context, name string, do func(context.Context) error) error {
	return c.Progress(ctx, name, func() string { return "" }, do)
}

// Progress is like Step; each line of a step that takes long ends with what more says.
func (c *Console) Progress(ctx context.Context, name string, more func() string, do func(context.Context) error) error {
	began := time.Now()
	done := make(chan struct{})
	var beats sync.WaitGroup
	beats.Go(func() { c.tick(name, began, more, done) })
	err := do(ctx)
	close(done)
	beats.Wait()
	took := time.Since(began).Round(100 * time.Millisecond)
	if err != nil {
		c.Say("%s: FAILED after %s", name, took)
		return err
	}
	c.Say("%s (%s)", name, took)
	return nil
}

func (c *Console) tick(name string, began time.Time, more func() string, done <-chan struct{}) {
	beat := time.NewTicker(c.beat)
	defer beat.Stop()
	for {
		select {
		case <-done:
			return
		case <-beat.C:
			c.Say("%s … %s so far%s", name, time.Since(began).Round(time.Second), more())
		}
	}
}
