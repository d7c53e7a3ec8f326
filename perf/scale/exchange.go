// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/pairing"
)

// price is what an exchange of a preshared key costs one end.
type price struct {
	cpu   time.Duration
	bytes int // both directions, in TCP
}

// counting counts what goes through a connection.
type counting struct {
	net.Conn
	n *atomic.Int64
}

func (c counting) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.Add(int64(n))
	return n, err
}

func (c counting) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.n.Add(int64(n))
	return n, err
}

type countingListener struct {
	net.Listener
	n *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return counting{c, l.n}, nil
}

// priceOf makes exchanges between two nodes over the loopback device. Half of what
// both ends spend is one end's.
func priceOf(ctx context.Context, a, b *author, authenticate func([][]byte) (keymgr.NodeID, error)) (price, error) {
	const times = 300
	end := func(x *author) pairing.Identity {
		return pairing.Identity{Node: x.live.ID, Authenticate: authenticate, Certificate: func() (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: x.chain, PrivateKey: x.key}, nil
		}}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return price{}, err
	}
	var bytes atomic.Int64
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	server := pairing.Server{
		Identity: end(b), Failed: func(netip.Addr, error) {},
		Agree: func(context.Context, pairing.Subject, keymgr.PresharedKey) error { return nil },
	}
	go func() { ended <- server.Serve(ctx, countingListener{l, &bytes}) }()
	subject := pairing.Subject{Peer: b.live.ID, Own: a.newest().Key, Theirs: b.newest().Key}
	to := l.Addr().(*net.TCPAddr).AddrPort()
	before := cpu()
	for range times {
		if _, err = pairing.Exchange(ctx, end(a), to, subject); err != nil {
			break
		}
	}
	spent := cpu() - before
	stop()
	if failed := <-ended; err == nil {
		err = failed
	}
	return price{spent / times / 2, int(bytes.Load() / times)}, err
}
