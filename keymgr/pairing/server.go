// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package pairing

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/sealane/sealane/keymgr"
)

const (
	// maxConnections and maxPerAddress bound the work that strangers can cause.
	maxConnections = 256
	maxPerAddress  = 16
)

// Server answers peers that ask for preshared keys.
type Server struct {
	// Identity is this node's side of all exchanges.
	Identity Identity
	// Agree installs a preshared key and returns when a handshake with it would work. To
	// refuse, it returns a *RefusedError, whose reason is sent to the peer.
	Agree func(context.Context, Subject, keymgr.PresharedKey) error
	// Failed is called for each connection that ended without a key, with the address that
	// it came from. It must not be nil.
	Failed func(from netip.Addr, err error)
}

// Serve answers until ctx ends, and closes the listener.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var wg sync.WaitGroup
	defer wg.Wait()
	guests := guests{from: map[netip.Addr]int{}}
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("serve pairing: %w", err)
		}
		if err != nil { // too many open files, or a connection that was reset: try again
			if !pause(ctx) {
				return nil
			}
			continue
		}
		from := remote(conn)
		if !guests.enter(from) {
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer guests.leave(from)
			if err := s.handle(ctx, conn); err != nil && ctx.Err() == nil {
				s.Failed(from, err)
			}
		})
	}
}

// pause waits a moment for a shortage to end. It reports false if ctx has ended.
func pause(ctx context.Context) bool {
	t := time.NewTimer(100 * time.Millisecond)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func remote(conn net.Conn) netip.Addr {
	a, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}

// guests counts open connections.
type guests struct {
	mu   sync.Mutex // guards all below
	all  int
	from map[netip.Addr]int
}

func (g *guests) enter(a netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all >= maxConnections || g.from[a] >= maxPerAddress {
		return false
	}
	g.all++
	g.from[a]++
	return true
}

func (g *guests) leave(a netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all--
	if g.from[a]--; g.from[a] == 0 {
		delete(g.from, a)
	}
}

func (s *Server) handle(ctx context.Context, raw net.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	var peer keymgr.NodeID
	cfg, err := s.Identity.config(&peer)
	if err != nil {
		return err
	}
	conn := tls.Server(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		return handshakeError(err)
	}
	if peer == (keymgr.NodeID{}) {
		return errIncomplete
	}
	asked, received, err := read(conn)
	if err != nil {
		return err
	}
	if asked.Node != peer {
		return fmt.Errorf("%w: node %s claims to be %s", ErrProtocol, peer, asked.Node)
	}
	if err := s.answer(ctx, conn, asked, received); err != nil {
		return fmt.Errorf("answer node %s: %w", peer.Name, err)
	}
	return conn.CloseWrite()
}

func (s *Server) answer(ctx context.Context, conn *tls.Conn, asked hello, received []byte) error {
	subject := asked.subject()
	message, err := hello{Purpose: Purpose, Node: s.Identity.Node, Key: subject.Own, PeerKey: subject.Theirs}.encode()
	if err != nil {
		return err
	}
	key, err := secret(conn.ConnectionState(), message, received)
	if err != nil {
		return err
	}
	if err := s.Agree(ctx, subject, key); err != nil {
		_, sent := hello{Refused: refusalOf(err)}.write(conn)
		return errors.Join(err, sent)
	}
	if _, err := conn.Write(message); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}
