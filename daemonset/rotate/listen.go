// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listenAgain is the time until an address that could not be listened on is tried again.
const listenAgain = 5 * time.Second

// listener accepts connections to one port of several addresses, which may change. It
// listens on these alone: a node has other addresses, for others than its peers.
type listener struct {
	port uint16
	log  *slog.Logger

	accepted chan accepted
	closed   chan struct{}
	once     sync.Once // closes it
	wg       sync.WaitGroup
	open     map[netip.Addr]net.Listener
}

// accepted is what accepting a connection has led to.
type accepted struct {
	conn net.Conn
	err  error
}

func newListener(port uint16, log *slog.Logger) *listener {
	return &listener{
		port: port, log: log, accepted: make(chan accepted), closed: make(chan struct{}), open: map[netip.Addr]net.Listener{},
	}
}

// follow listens on the addresses that wanted returns, now and after each change, until ctx
// ends. It fails if it can listen on none of them.
func (l *listener) follow(ctx context.Context, changed <-chan struct{}, wanted func() []netip.Addr) error {
	defer l.shut()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-timer.C:
		}
		if err := l.listen(ctx, wanted()); err != nil && ctx.Err() == nil {
			if len(l.open) == 0 {
				return err
			}
			l.log.Error("peers cannot agree on preshared keys by this address", "error", err, "retry", listenAgain)
			timer.Reset(listenAgain)
		}
	}
}

// listen opens what is missing and closes what is not wanted any more.
func (l *listener) listen(ctx context.Context, wanted []netip.Addr) error {
	for a, old := range l.open {
		if !slices.Contains(wanted, a) {
			old.Close()
			delete(l.open, a)
		}
	}
	var errs []error
	for _, a := range wanted {
		if l.open[a] != nil {
			continue
		}
		on, err := (&net.ListenConfig{Control: freely}).Listen(ctx, "tcp", netip.AddrPortFrom(a, l.port).String())
		if err != nil {
			errs = append(errs, fmt.Errorf("listen for --pairing-port=%d on %s: %w", l.port, a, err))
			continue
		}
		l.open[a] = on
		l.wg.Go(func() { l.accept(on) })
	}
	return errors.Join(errs...)
}

// freely lets a socket listen on an address that the node does not have yet: IPv6 looks for
// duplicates first, and another device may bring the address later.
func freely(network, _ string, c syscall.RawConn) (err error) {
	level, option := unix.SOL_IP, unix.IP_FREEBIND
	if network == "tcp6" {
		level, option = unix.SOL_IPV6, unix.IPV6_FREEBIND
	}
	failed := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) })
	return errors.Join(failed, err)
}

// accept passes connections on until on is closed.
func (l *listener) accept(on net.Listener) {
	for {
		conn, err := on.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		select {
		case l.accepted <- accepted{conn, err}:
		case <-l.closed:
			if err == nil {
				conn.Close()
			}
			return
		}
	}
}

func (l *listener) shut() {
	_ = l.Close()
	for _, on := range l.open {
		on.Close()
	}
	l.wg.Wait()
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case a := <-l.accepted:
		return a.conn, a.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. The sockets are closed when follow ends.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return &net.TCPAddr{Port: int(l.port)} }
