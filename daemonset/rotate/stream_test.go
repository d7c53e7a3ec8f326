// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// A stream writes so much so often: it always has something under way, and leaves
// the processor to the packets that are counted.
const (
	chunk      = 1 << 10 // bytes
	chunkEvery = 20 * time.Millisecond
)

// stream is a TCP connection from one node's pod to another's.
type stream struct {
	from, to       *labNode
	out, in        net.Conn
	sent, received int
	stall          time.Duration // longest time without a byte
	err            error
}

func (s *stream) String() string {
	return fmt.Sprintf("%s > %s, TCP: sent %d bytes, received %d, longest stall %d ms", s.from.live.ID.Name, s.to.live.ID.Name,
		s.sent, s.received, s.stall.Milliseconds())
}

func (l *lab) newStream(t *testing.T, from, to *labNode) *stream {
	t.Helper()
	var server net.Listener
	var err error
	to.ns.Do(func() { server, err = net.Listen("tcp", netip.AddrPortFrom(to.pod, 0).String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	s := &stream{from: from, to: to}
	from.ns.Do(func() {
		d := net.Dialer{Timeout: patience, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from.pod, 0))}
		s.out, err = d.Dial("tcp", server.Addr().String())
	})
	if err == nil {
		t.Cleanup(func() { _ = s.out.Close() })
		s.in, err = server.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.in.Close() })
	return s
}

// send ends the stream when it has been told to.
func (s *stream) send(ctx context.Context) {
	data := make([]byte, chunk)
	tick := time.NewTicker(chunkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			_ = s.out.Close() // sends what is left
			return
		case <-tick.C:
			n, err := s.out.Write(data)
			if s.sent += n; err != nil {
				return
			}
		}
	}
}

// receive reads until the stream's end, which has to come in time.
func (s *stream) receive(done <-chan struct{}) {
	go func() {
		<-done
		_ = s.in.SetReadDeadline(time.Now().Add(patience))
	}()
	buf, last := make([]byte, 64<<10), time.Now()
	for {
		n, err := s.in.Read(buf)
		now := time.Now()
		s.stall, last = max(s.stall, now.Sub(last)), now
		if s.received += n; err != nil {
			if !errors.Is(err, io.EOF) {
				s.err = err
			}
			return
		}
	}
}

// check wants all that was sent.
func (s *stream) check(t *testing.T) {
	t.Helper()
	t.Log(s)
	if s.err != nil || s.received != s.sent || s.sent == 0 {
		t.Errorf("%s: %v", s, s.err)
	}
}
