// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Attempts are connections to try, all at once.
type Attempts struct {
	Targets []Target `json:"targets"`
	Within  float64  `json:"withinMS"`
}

// Target is where to connect to.
type Target struct {
	Network string `json:"network"` // tcp or udp
	Address string `json:"address"`
}

// Attempt is what came of one.
type Attempt struct {
	Answer  string  `json:"answer"` // the server's name, and whom it saw
	Refused bool    `json:"refused"`
	Error   string  `json:"error"`
	MS      float64 `json:"ms"`
}

func (o *orders) try(all Attempts) ([]Attempt, error) {
	ctx, cancel := context.WithTimeout(o.ctx, time.Duration(all.Within*float64(time.Millisecond)))
	defer cancel()
	results := make([]Attempt, len(all.Targets))
	var wg sync.WaitGroup
	for i, to := range all.Targets {
		wg.Go(func() {
			start := time.Now()
			text, err := ask(ctx, to)
			results[i] = Attempt{Answer: text, Refused: errors.Is(err, syscall.ECONNREFUSED), MS: milliseconds(time.Since(start))}
			if err != nil {
				results[i].Error = err.Error()
			}
		})
	}
	wg.Wait()
	return results, nil
}

// ask connects, and gives what the server says first.
func ask(ctx context.Context, to Target) (string, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, to.Network, to.Address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if to.Network == "udp" {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go every(ctx, 150*time.Millisecond, func() { _, _ = conn.Write([]byte("?")) })
	}
	deadline, _ := ctx.Deadline()
	if err := conn.SetReadDeadline(deadline); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

// flow is packets, or pieces of a stream, that a server sends back.
type flow struct {
	mu       sync.Mutex // guards all below
	sent     []int64
	answered []int64
	err      string
}

// Course is the course of a flow: when each piece was sent, and when it came
// back, in nanoseconds of Unix time. 0: it did not.
type Course struct {
	Sent     []int64 `json:"sent"`
	Answered []int64 `json:"answered"`
	Error    string  `json:"error"`
}

// Flow names a flow.
type Flow struct {
	Target
	Every float64 `json:"everyMS"`
	Since int64   `json:"since"` // of the course, what was sent since then
}

// begin starts a flow from a new port, in place of an earlier one to the target.
func (o *orders) begin(q Flow) (struct{}, error) {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(o.ctx, q.Network, q.Address)
	if err != nil {
		return struct{}{}, err
	}
	context.AfterFunc(o.ctx, func() { conn.Close() })
	f := &flow{}
	o.mu.Lock()
	o.flows[q.Network+q.Address] = f
	o.mu.Unlock()
	go f.receive(conn)
	go every(o.ctx, time.Duration(q.Every*float64(time.Millisecond)), func() { f.send(conn) })
	return struct{}{}, nil
}

func (f *flow) send(conn net.Conn) {
	f.mu.Lock()
	number := len(f.sent)
	f.sent, f.answered = append(f.sent, time.Now().UnixNano()), append(f.answered, 0)
	f.mu.Unlock()
	_, _ = conn.Write(binary.BigEndian.AppendUint64(nil, uint64(number)))
}

// receive also takes the greeting of a stream, which is a line.
func (f *flow) receive(conn net.Conn) {
	in := bufio.NewReader(conn)
	if _, stream := conn.(*net.TCPConn); stream {
		_, _ = in.ReadString('\n')
	}
	var number [8]byte
	for {
		_, err := io.ReadFull(in, number[:])
		if errors.Is(err, syscall.ECONNREFUSED) {
			continue // UDP, and who answered has gone
		}
		f.mu.Lock()
		if err != nil {
			f.err = err.Error()
			f.mu.Unlock()
			return
		}
		if n := binary.BigEndian.Uint64(number[:]); n < uint64(len(f.answered)) {
			f.answered[n] = time.Now().UnixNano()
		}
		f.mu.Unlock()
	}
}

func (o *orders) flow(q Flow) (Course, error) {
	o.mu.Lock()
	f := o.flows[q.Network+q.Address]
	o.mu.Unlock()
	if f == nil {
		return Course{}, fmt.Errorf("no flow to %s by %s", q.Address, q.Network)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i := 0
	for i < len(f.sent) && f.sent[i] < q.Since {
		i++
	}
	return Course{Sent: append([]int64{}, f.sent[i:]...), Answered: append([]int64{}, f.answered[i:]...), Error: f.err}, nil
}
