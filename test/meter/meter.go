// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	// packetSize is of a UDP packet's payload, and streamRate of each TCP stream.
	packetSize = 200
	streamRate = 256 << 10 // bytes per second
	// settle is how long packets may still be on their way at the end.
	settle = 2 * time.Second
	buffer = 4 << 20
)

// order is what the client wants, and sends first on the control connection.
type order struct {
	PPS     int
	Length  time.Duration
	Out, In bool
}

// Flow is what became of one direction.
type Flow struct {
	Sent      int     `json:"sent"`
	Received  int     `json:"received"`
	Lost      int     `json:"lost"`
	Reordered int     `json:"reordered"`
	GapMS     float64 `json:"gapMS"`   // longest time between two UDP packets
	StallMS   float64 `json:"stallMS"` // longest time in which the TCP stream stood still
	Bytes     int     `json:"bytes"`   // of the TCP stream
	// RcvbufErrors are UDP packets that found a full socket in the receiver's namespace.
	RcvbufErrors int `json:"rcvbufErrors"`
}

// Report is both directions.
type Report struct {
	Out Flow `json:"out"`
	In  Flow `json:"in"`
}

// half is one end's part: what it sent, and what it received.
type half struct {
	Sent int
	Flow Flow
}

// serve answers one client after the other until ctx ends.
func serve(ctx context.Context, addr string) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		control, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := answer(ctx, control, l); err != nil {
			fmt.Fprintln(os.Stderr, "meter:", err)
		}
		control.Close()
	}
}

// answer serves one run: the client connects a second time for the streams.
func answer(ctx context.Context, control net.Conn, l net.Listener) error {
	dec, enc := json.NewDecoder(control), json.NewEncoder(control)
	var o order
	if err := dec.Decode(&o); err != nil {
		return err
	}
	stream, err := l.Accept()
	if err != nil {
		return err
	}
	defer stream.Close()
	udp, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		return err
	}
	defer udp.Close()
	if err := enc.Encode("ready"); err != nil {
		return err
	}
	hello := make([]byte, 16)
	_, peer, err := udp.ReadFrom(hello)
	if err != nil {
		return err
	}
	e := end{udp: udp, to: peer, stream: stream, order: o, sends: o.In, receives: o.Out}
	h, err := e.run(ctx)
	if err != nil {
		return err
	}
	return enc.Encode(h)
}

func measure(ctx context.Context, addr string, o order) (Report, error) {
	control, err := net.Dial("tcp", addr)
	if err != nil {
		return Report{}, err
	}
	defer control.Close()
	dec, enc := json.NewDecoder(control), json.NewEncoder(control)
	if err := enc.Encode(o); err != nil {
		return Report{}, err
	}
	stream, err := net.Dial("tcp", addr)
	if err != nil {
		return Report{}, err
	}
	defer stream.Close()
	var ready string
	if err := dec.Decode(&ready); err != nil {
		return Report{}, err
	}
	udp, to, err := socket(addr)
	if err != nil {
		return Report{}, err
	}
	defer udp.Close()
	if _, err := udp.WriteTo([]byte("hello"), to); err != nil {
		return Report{}, err
	}
	e := end{udp: udp, to: to, stream: stream, order: o, sends: o.Out, receives: o.In}
	mine, err := e.run(ctx)
	if err != nil {
		return Report{}, err
	}
	var theirs half
	if err := dec.Decode(&theirs); err != nil {
		return Report{}, err
	}
	return Report{Out: theirs.Flow.of(mine.Sent), In: mine.Flow.of(theirs.Sent)}, nil
}

func socket(addr string) (net.PacketConn, net.Addr, error) {
	to, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, nil, err
	}
	udp, err := net.ListenPacket("udp", ":0")
	return udp, to, err
}

func (f Flow) of(sent int) Flow {
	f.Sent, f.Lost = sent, sent-f.Received
	return f
}

// end is one end of a run.
type end struct {
	udp             net.PacketConn
	to              net.Addr
	stream          net.Conn
	order           order
	sends, receives bool
}

func (e end) run(ctx context.Context) (half, error) {
	if err := e.udp.(*net.UDPConn).SetReadBuffer(buffer); err != nil {
		return half{}, err
	}
	full, err := rcvbufErrors()
	if err != nil {
		return half{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, e.order.Length)
	defer cancel()
	deadline := time.Now().Add(e.order.Length + settle)
	if err := errors.Join(e.udp.SetReadDeadline(deadline), e.stream.SetReadDeadline(deadline)); err != nil {
		return half{}, err
	}
	var h half
	var wg sync.WaitGroup
	if e.sends {
		wg.Go(func() { h.Sent = e.sendPackets(ctx) })
		wg.Go(func() { e.sendStream(ctx) })
	}
	wg.Go(func() { e.receivePackets(&h.Flow, deadline) }) // also on one way, to the same deadline
	wg.Go(func() { e.receiveStream(&h.Flow) })
	wg.Wait()
	after, err := rcvbufErrors()
	h.Flow.RcvbufErrors = after - full
	return h, err
}

// sendPackets sends at a steady rate, in small bursts that make up for late timers.
func (e end) sendPackets(ctx context.Context) (sent int) {
	packet := make([]byte, packetSize)
	start := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return sent
		case <-tick.C:
		}
		for due := int(time.Since(start).Seconds() * float64(e.order.PPS)); sent < due; sent++ {
			binary.BigEndian.PutUint64(packet, uint64(sent)+1)
			if _, err := e.udp.WriteTo(packet, e.to); err != nil {
				break // not sent; the same number comes again
			}
		}
	}
}

// receivePackets counts until the deadline, and then as long as packets still come: on
// a busy machine some have waited longer.
func (e end) receivePackets(f *Flow, deadline time.Time) {
	packet := make([]byte, packetSize+1)
	var newest uint64
	var last time.Time
	seen := map[uint64]bool{}
	for {
		n, _, err := e.udp.ReadFrom(packet)
		if err != nil {
			return
		}
		if n != packetSize {
			continue
		}
		number := binary.BigEndian.Uint64(packet)
		if seen[number] {
			continue
		}
		seen[number] = true
		f.Received++
		if number < newest {
			f.Reordered++
		}
		newest = max(newest, number)
		now := time.Now()
		if !last.IsZero() {
			f.GapMS = max(f.GapMS, float64(now.Sub(last))/float64(time.Millisecond))
		}
		last = now
		if now.Add(settle).After(deadline) {
			if err := e.udp.SetReadDeadline(now.Add(settle)); err != nil {
				return
			}
		}
	}
}

func (e end) sendStream(ctx context.Context) {
	chunk := make([]byte, streamRate/200)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := e.stream.SetWriteDeadline(time.Now().Add(e.order.Length)); err != nil {
			return
		}
		if _, err := e.stream.Write(chunk); err != nil {
			return
		}
	}
}

func (e end) receiveStream(f *Flow) {
	chunk := make([]byte, 64<<10)
	var last time.Time
	for {
		n, err := e.stream.Read(chunk)
		now := time.Now()
		if n > 0 && !last.IsZero() {
			f.StallMS = max(f.StallMS, float64(now.Sub(last))/float64(time.Millisecond))
		}
		f.Bytes += n
		last = now
		if err != nil {
			return
		}
	}
}

// rcvbufErrors counts the packets of this network namespace that found a full
// socket, of both families.
func rcvbufErrors() (int, error) {
	four, err := os.ReadFile("/proc/net/snmp")
	if err != nil {
		return 0, err
	}
	total := 0
	var names []string
	for line := range strings.Lines(string(four)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "Udp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			if name == "RcvbufErrors" && i < len(fields) {
				total += number(fields[i])
			}
		}
	}
	six, err := os.ReadFile("/proc/net/snmp6")
	if err != nil {
		return total, nil // no IPv6 here
	}
	for line := range strings.Lines(string(six)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "Udp6RcvbufErrors" {
			total += number(fields[1])
		}
	}
	return total, nil
}

func number(s string) int {
	var n int
	if _, err := fmt.Sscan(s, &n); err != nil {
		return 0
	}
	return n
}
