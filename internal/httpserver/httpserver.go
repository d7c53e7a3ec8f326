// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package httpserver serves probes, metrics and reports on the host's network, where
// whoever reaches the node can connect. It bounds what strangers can hold or make a program
// do, and keeps room for those who are to be served in any case.
package httpserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/sealane/sealane/internal/crowd"
)

const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	writeTimeout  = 30 * time.Second // a report of 5,000 peers over a slow path
	idleTimeout   = time.Minute      // longer than Prometheus' usual pause between scrapes
	maxHeader     = 16 << 10         // bytes; the API server's proxy adds some of its own
)

// Server answers HTTP requests.
type Server struct {
	Handler http.Handler
	// Known reports whether an address is that of somebody who is to be served whatever
	// strangers do. This host itself always is. Nil: nobody else.
	Known func(netip.Addr) bool
}

// Serve answers until ctx ends, and closes the listener.
func (s Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: s.Handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader, ConnState: follow,
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })() // its error is that of Serve
	limits := crowd.Limits{All: 64, PerAddress: 16}
	guarded := &listener{Listener: l, known: s.Known, friends: crowd.New(limits), strangers: crowd.New(limits)}
	if err := server.Serve(guarded); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// listener accepts as many connections as there is room for.
type listener struct {
	net.Listener
	known              func(netip.Addr) bool
	friends, strangers *crowd.Crowd
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from, room := ip(c.RemoteAddr().String()), l.strangers
		if knows(l.known, c.LocalAddr(), from) {
			room = l.friends
		}
		if g, ok := room.Enter(c, from); ok {
			return &conn{Conn: c, guest: g}, nil
		}
		c.Close()
	}
}

// conn is a connection that leaves the crowd when it ends.
type conn struct {
	net.Conn
	guest *crowd.Guest
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.guest.Leave()
	return c.Conn.Close()
}

// follow tells the crowd which connections have something to do.
func follow(c net.Conn, s http.ConnState) {
	if c, ok := c.(*conn); ok {
		c.guest.SetBusy(s == http.StateActive)
	}
}

// ip returns the address of a text with a port, and the zero Addr if that is none of IP.
func ip(text string) netip.Addr {
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap().WithZone("")
}

// knows reports whether a client is this host or known. A client on this host has the
// address that it connects to, which the kernel accepts from no device.
func knows(known func(netip.Addr) bool, local net.Addr, from netip.Addr) bool {
	return from.IsLoopback() || from.IsValid() && local != nil && ip(local.String()) == from || known != nil && known(from)
}

// OnlyFor serves requests of this host and of those that are known, and refuses others
// with a text that says what to do about it.
func OnlyFor(known func(netip.Addr) bool, remedy string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		if from := ip(r.RemoteAddr); !knows(known, local, from) {
			http.Error(w, fmt.Sprintf("not for %s: %s", from, remedy), http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// Cached returns a function that calls produce at most once in the time of a life, and
// returns its last result in between: so readers, however many, cannot make it work without
// end. Readers share a result, and must not change it.
func Cached[T any](clock func() time.Time, life time.Duration, produce func() T) func() T {
	var (
		mu   sync.Mutex // guards what follows
		last T
		at   time.Time
	)
	return func() T {
		mu.Lock()
		defer mu.Unlock()
		if now := clock(); at.IsZero() || now.Sub(at) >= life || now.Before(at) {
			last, at = produce(), now
		}
		return last
	}
}
