// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// firstPort is where a pod that was just born listens.
	firstPort = "7000"
	// pace is how often one sends to the same target.
	pace = 20 * time.Millisecond
)

// Birth is what a pod saw from its first instruction on.
type Birth struct {
	Sent      int64          `json:"sent"`      // UDP packets that the kernel took
	Dialled   int64          `json:"dialled"`   // TCP connections that were tried
	Connected int64          `json:"connected"` // of these
	Refused   int64          `json:"refused"`   // of these
	Seen      map[string]int `json:"seen"`      // packets that came, by source and kind
	// Received is what the network namespace has received from its making to the
	// start, and to the end.
	Received [2]int `json:"received"`
}

// first sends to all targets, and listens, until length is over.
func first(ctx context.Context, targets []string, length time.Duration) (Birth, error) {
	var b Birth
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	for _, to := range targets {
		go b.send(ctx, to)
		go b.dial(ctx, to)
	}
	s, err := sniff()
	if err != nil {
		return b, err
	}
	if b.Received[0], err = received(); err != nil {
		return b, err
	}
	if err := answer(ctx, firstPort); err != nil {
		return b, err
	}
	<-ctx.Done()
	b.Seen = s.counts()
	b.Received[1], err = received()
	end := Birth{Seen: b.Seen, Received: b.Received}
	end.Sent, end.Dialled = atomic.LoadInt64(&b.Sent), atomic.LoadInt64(&b.Dialled)
	end.Connected, end.Refused = atomic.LoadInt64(&b.Connected), atomic.LoadInt64(&b.Refused)
	return end, err
}

func (b *Birth) send(ctx context.Context, to string) {
	conn, err := net.Dial("udp", to)
	if err != nil {
		return
	}
	defer conn.Close()
	every(ctx, pace, func() {
		if _, err := conn.Write([]byte("?")); err == nil {
			atomic.AddInt64(&b.Sent, 1)
		}
	})
}

func (b *Birth) dial(ctx context.Context, to string) {
	d := net.Dialer{Timeout: 10 * pace}
	every(ctx, pace, func() {
		atomic.AddInt64(&b.Dialled, 1)
		conn, err := d.DialContext(ctx, "tcp", to)
		switch {
		case err == nil:
			atomic.AddInt64(&b.Connected, 1)
			conn.Close()
		case errors.Is(err, syscall.ECONNREFUSED):
			atomic.AddInt64(&b.Refused, 1)
		}
	})
}

// every does something at once, and again at each period until ctx ends.
func every(ctx context.Context, period time.Duration, do func()) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for ctx.Err() == nil {
		do()
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// Call is a pod's first connection.
type Call struct {
	Name          string  `json:"name"`
	MS            float64 `json:"ms"`
	Retransmitted int     `json:"retransmitted"` // SYNs that were sent again
	Error         string  `json:"error"`
}

func dial(ctx context.Context, to string) Call {
	var c Call
	c.Name, _ = os.Hostname()
	start := time.Now()
	conn, err := (&net.Dialer{Timeout: 20 * time.Second}).DialContext(ctx, "tcp", to)
	c.MS = milliseconds(time.Since(start))
	if err != nil {
		c.Error = err.Error()
		return c
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			info, e := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			if e != nil {
				c.Error = e.Error()
				return
			}
			c.Retransmitted = int(info.Total_retrans)
		})
	}
	if err != nil {
		c.Error = err.Error()
	}
	return c
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
