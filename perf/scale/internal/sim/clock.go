// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package sim has simulated time, and measures the processor time that is real.
package sim

import (
	"container/heap"
	"syscall"
	"time"
)

// Clock is simulated time: it jumps from event to event.
type Clock struct {
	now   time.Time
	count int
	queue queue
}

type event struct {
	at     time.Time
	number int // keeps the order of what happens at the same time
	do     func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].number < q[j].number
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// NewClock makes a clock that shows now.
func NewClock(now time.Time) *Clock { return &Clock{now: now} }

// Now returns the simulated time.
func (c *Clock) Now() time.Time { return c.now }

// Set sets the clock. What should have happened before happens late.
func (c *Clock) Set(now time.Time) { c.now = now }

// At lets something happen at a moment.
func (c *Clock) At(t time.Time, do func()) {
	c.count++
	heap.Push(&c.queue, event{t, c.count, do})
}

// After lets something happen after a while.
func (c *Clock) After(d time.Duration, do func()) { c.At(c.now.Add(d), do) }

// Clear drops what is still to happen.
func (c *Clock) Clear() { c.queue = nil }

// Until lets everything happen up to a moment, or until enough is true.
func (c *Clock) Until(end time.Time, enough func() bool) {
	for len(c.queue) > 0 && !c.queue[0].at.After(end) && !enough() {
		e := heap.Pop(&c.queue).(event)
		c.now = e.at
		e.do()
	}
	if !enough() {
		c.now = end
	}
}

// CPU returns what this process has spent so far, garbage collection included.
func CPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it has no reason to fail
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Measure adds what work spends to a sum, and returns it.
func Measure(sum *time.Duration, work func()) time.Duration {
	before := CPU()
	work()
	spent := CPU() - before
	*sum += spent
	return spent
}
