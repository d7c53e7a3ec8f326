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
	// Connections whose end is not known yet: from addresses of nodes, and from all others.
	maxKnown      = 256
	maxPerAddress = 16
	maxStrangers  = 8
	// maxPerPeer bounds the connections of a node once it has shown who it is.
	maxPerPeer = 4
	// Of strangers, this many handshakes are begun in a second, after a first few at once.
	strangersPerSecond, strangersAtOnce = 1, 5
)

// Server answers peers that ask for preshared keys.
//
// Whoever reaches its port makes it work before it knows anybody: a handshake costs an
// encapsulation and a signature. Hence the address decides first, before any of that. Nodes
// have their room, of which no address can take more than its share, and in which a
// connection that says nothing makes way for the next: so silence, from whichever address,
// keeps no node out. All other addresses share a few handshakes in a second. A node may be
// among them: one that has just joined, or whose connections come from another of its
// addresses. A connection counts against its address only until its end is known, and then
// against that node alone.
type Server struct {
	// Identity is this node's side of all exchanges.
	Identity Identity
	// Known reports whether an address is that of a node with which this one pairs. It must not be nil.
	Known func(netip.Addr) bool
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
	door := newDoor(s.Known)
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
		v, err := door.admit(conn, from)
		if err != nil {
			conn.Close()
			s.Failed(from, err)
			continue
		}
		wg.Go(func() {
			defer v.leave()
			if err := s.handle(ctx, conn, v); err != nil && ctx.Err() == nil {
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

func (s *Server) handle(ctx context.Context, raw net.Conn, v *visit) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	var peer keymgr.NodeID
	cfg, err := s.Identity.config(&peer)
	if err != nil {
		return err
	}
	agreeable := cfg.GetConfigForClient
	cfg.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		v.guest.SetBusy(true) // it has said something
		return agreeable(h)
	}
	conn := tls.Server(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		return handshakeError(err)
	}
	if peer == (keymgr.NodeID{}) {
		return errIncomplete
	}
	if err := v.introduce(peer); err != nil {
		return err
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
