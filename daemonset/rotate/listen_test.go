// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotate

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/internal/signal"
)

// TestListensOnTheNodesAddresses: on these alone, on others when they change, and also on
// one that the node does not have yet.
func TestListensOnTheNodesAddresses(t *testing.T) {
	first, second, later := netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3"), netip.MustParseAddr("192.0.2.1")
	l, p := newListener(nettest.FreePort(t), slog.New(slog.DiscardHandler)), newPlaces()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.follow(ctx, p.moved, p.addresses) }()
	reach := func(a netip.Addr) error {
		c, err := net.Dial("tcp", netip.AddrPortFrom(a, l.port).String())
		if err != nil {
			return err
		}
		defer c.Close()
		got, err := l.Accept()
		if err != nil {
			return err
		}
		defer got.Close()
		if there := got.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(); there != a {
			t.Errorf("a connection to %s arrived at %s", a, there)
		}
		return nil
	}
	arrive := func(a netip.Addr) {
		t.Helper()
		for reach(a) != nil {
			if t.Context().Err() != nil {
				t.Fatalf("nobody listens on %s", a)
			}
		}
	}
	p.settle([]netip.Addr{first, later})
	arrive(first)
	if err := reach(second); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("an address that is not the node's: %v", err)
	}
	p.settle([]netip.Addr{second, later})
	arrive(second)
	if err := reach(first); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("an address that the node had before: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// TestNoAddressIsAFault: a port that another process has is told, and not waited for.
func TestNoAddressIsAFault(t *testing.T) {
	home := netip.MustParseAddr("127.0.0.1")
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	port := other.Addr().(*net.TCPAddr).AddrPort().Port()
	l := newListener(port, slog.New(slog.DiscardHandler))
	err = l.follow(t.Context(), signal.New(), func() []netip.Addr { return []netip.Addr{home} })
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("error %v, want EADDRINUSE", err)
	}
}

// TestPlaces: a partner is known by each of its addresses, and asked from the address of
// this node that it knows.
func TestPlaces(t *testing.T) {
	s := newStore(t)
	four, six := netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::9")
	s.peer.from = []netip.Addr{four, six}
	s.know(s.peer)
	if !s.places.known(four) || !s.places.known(six) || s.places.at(six) != s.peer.id {
		t.Error("a partner is a stranger")
	}
	if other := netip.MustParseAddr("192.0.2.8"); s.places.known(other) || s.places.at(other).Name != other.String() {
		t.Error("a stranger is a partner")
	}
	s.places.settle([]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")})
	if a := s.identity.Address(four); a != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("asks from %s", a)
	}
	if a := s.identity.Address(six); a.IsValid() {
		t.Errorf("asks from %s at an address of another family", a)
	}
}
