// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package pairing

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/sealane/sealane/keymgr"
)

// timeout bounds a whole exchange, on either node.
const timeout = 5 * time.Second

// Exchange asks the peer at addr for a preshared key. When it returns one, the peer has
// prepared its side. After an error the peer may have installed a key that this node does
// not know: ask again.
func Exchange(ctx context.Context, self Identity, addr netip.AddrPort, s Subject) (keymgr.PresharedKey, error) {
	key, err := exchange(ctx, self, addr, s)
	if err != nil {
		return keymgr.PresharedKey{}, fmt.Errorf("pair with node %s at %s: %w", s.Peer.Name, addr, err)
	}
	return key, nil
}

func exchange(ctx context.Context, self Identity, addr netip.AddrPort, s Subject) (keymgr.PresharedKey, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	dialer := net.Dialer{}
	if self.Address != nil {
		if a := self.Address(addr.Addr()); a.IsValid() {
			dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0))
		}
	}
	raw, err := dialer.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return keymgr.PresharedKey{}, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	var peer keymgr.NodeID
	cfg, err := self.config(&peer)
	if err != nil {
		return keymgr.PresharedKey{}, err
	}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		return keymgr.PresharedKey{}, handshakeError(err)
	}
	if peer != s.Peer {
		return keymgr.PresharedKey{}, fmt.Errorf("%w: it is node %s", ErrCertificate, peer)
	}
	return ask(conn, self, s)
}

func ask(conn *tls.Conn, self Identity, s Subject) (keymgr.PresharedKey, error) {
	sent, err := hello{Purpose: Purpose, Node: self.Node, Key: s.Own, PeerKey: s.Theirs}.write(conn)
	if err != nil {
		return keymgr.PresharedKey{}, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	answer, received, err := read(conn)
	if err != nil {
		// In TLS 1.3 the server reports only now whether it accepts the client's certificate.
		return keymgr.PresharedKey{}, handshakeError(err)
	}
	if answer.Refused != "" {
		return keymgr.PresharedKey{}, &RefusedError{Reason: answer.Refused}
	}
	if answer.subject() != s {
		return keymgr.PresharedKey{}, fmt.Errorf("%w: the answer is about other keys", ErrProtocol)
	}
	return secret(conn.ConnectionState(), received, sent)
}
