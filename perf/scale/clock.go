// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"container/heap"
	"syscall"
	"time"
)

// clock is simulated time: it jumps from event to event.
type clock struct {
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

// Now is for all that want a clock.
func (c *clock) Now() time.Time { return c.now }

func (c *clock) at(t time.Time, do func()) {
	c.count++
	heap.Push(&c.queue, event{t, c.count, do})
}

func (c *clock) after(d time.Duration, do func()) { c.at(c.now.Add(d), do) }

// until lets everything happen up to a moment, or until enough is true.
func (c *clock) until(end time.Time, enough func() bool) {
	for len(c.queue) > 0 && !c.queue[0].at.After(end) && !enough() {
		e := heap.Pop(&c.queue).(event)
		c.now = e.at
		e.do()
	}
	if !enough() {
		c.now = end
	}
}

// cpu is what this process has spent so far, garbage collection included.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it has no reason to fail
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure adds what work spends to a sum, and returns it.
func measure(sum *time.Duration, work func()) time.Duration {
	before := cpu()
	work()
	spent := cpu() - before
	*sum += spent
	return spent
}
