// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"
)

func TestLoopbackLosesNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- serve(ctx, addr) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for _, o := range []order{
		{PPS: 500, Length: time.Second, Out: true, In: true}, {PPS: 500, Length: time.Second, Out: true},
	} {
		r, err := untilServed(ctx, addr, o)
		if err != nil {
			t.Fatal(err)
		}
		for name, f := range map[string]Flow{"out": r.Out, "in": r.In} {
			wanted := name == "out" || o.In
			if f.Lost > f.RcvbufErrors {
				t.Errorf("%s: %+v", name, f)
			}
			if wanted != (f.Sent >= 400) || wanted != (f.Bytes > streamRate/2) {
				t.Errorf("%s of %+v: %+v", name, o, f)
			}
		}
	}
}

func untilServed(ctx context.Context, addr string, o order) (Report, error) {
	for {
		r, err := measure(ctx, addr, o)
		if op := new(net.OpError); !errors.As(err, &op) || op.Op != "dial" || ctx.Err() != nil {
			return r, err
		}
	}
}

// packets is a socket that delivers given numbers.
type packets struct {
	net.PacketConn
	numbers []uint64
}

func (p *packets) ReadFrom(b []byte) (int, net.Addr, error) {
	if len(p.numbers) == 0 {
		return 0, nil, io.EOF
	}
	binary.BigEndian.PutUint64(b, p.numbers[0])
	p.numbers = p.numbers[1:]
	return packetSize, nil, nil
}

func TestCounts(t *testing.T) {
	var f Flow
	e := end{udp: &packets{numbers: slices.Clone([]uint64{1, 2, 4, 3, 3, 7})}}
	e.receivePackets(&f, time.Now().Add(time.Hour))
	f = f.of(7)
	if f.Received != 5 || f.Lost != 2 || f.Reordered != 1 {
		t.Errorf("of 1 2 4 3 3 7 out of 7: %+v; want 5 received, 2 lost, 1 late", f)
	}
}
