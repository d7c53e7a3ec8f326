// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package price measures what an exchange of a preshared key costs.
package price

import (
	"context"
	"crypto"
	"crypto/tls"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/pairing"
	"github.com/sealane/sealane/perf/scale/internal/sim"
)

// Price is what an exchange of a preshared key costs one end.
type Price struct {
	CPU   time.Duration
	Bytes int // both directions, in TCP
}

// End is one of the two nodes of an exchange.
type End struct {
	Node  keymgr.NodeID
	Chain [][]byte
	Key   crypto.Signer
	// WireGuard is the key that the preshared key is for.
	WireGuard keymgr.PublicKey
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

// Of makes exchanges between two nodes over the loopback device. Half of what both ends
// spend is the price of one.
func Of(ctx context.Context, a, b End, authenticate func([][]byte) (keymgr.NodeID, error)) (Price, error) {
	const times = 300
	end := func(x End) pairing.Identity {
		return pairing.Identity{Node: x.Node, Authenticate: authenticate, Certificate: func() (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: x.Chain, PrivateKey: x.Key}, nil
		}}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return Price{}, err
	}
	var bytes atomic.Int64
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	server := pairing.Server{
		Identity: end(b), Known: func(netip.Addr) bool { return true }, Failed: func(netip.Addr, error) {},
		Agree: func(context.Context, pairing.Subject, keymgr.PresharedKey) error { return nil },
	}
	go func() { ended <- server.Serve(ctx, countingListener{l, &bytes}) }()
	subject := pairing.Subject{Peer: b.Node, Own: a.WireGuard, Theirs: b.WireGuard}
	to := l.Addr().(*net.TCPAddr).AddrPort()
	before := sim.CPU()
	for range times {
		if _, err = pairing.Exchange(ctx, end(a), to, subject); err != nil {
			break
		}
	}
	spent := sim.CPU() - before
	stop()
	if failed := <-ended; err == nil {
		err = failed
	}
	return Price{spent / times / 2, int(bytes.Load() / times)}, err
}
