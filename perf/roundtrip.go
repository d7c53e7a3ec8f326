// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/perf/netnsexec"
)

// A round trip is one byte there and one back. Both sides use blocking sockets: Go's own
// ones would measure its scheduler, too.

// warmUp is how many round trips are not counted.
const warmUp = 50

// maxConnects is how many connections a run makes at most. Each keeps a port of
// the client for a minute, and there are 28,000.
const maxConnects = 5000

// ioTimeout ends a run whose other side is gone.
const ioTimeout = 10 * time.Second

// serveRoundTrips answers every byte on every connection until ctx ends. It says on w
// when it listens.
func serveRoundTrips(ctx context.Context, port int, w io.Writer) error {
	ln, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(ln)
	if err := unix.SetsockoptInt(ln, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(ln, &unix.SockaddrInet4{Port: port}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(ln, 128); err != nil {
		return os.NewSyscallError("listen", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = unix.Shutdown(ln, unix.SHUT_RDWR) }) // ends the Accept4
	defer stop()
	fmt.Fprintln(w, netnsexec.Listening)
	for {
		fd, err := retry(func() (int, error) {
			fd, _, err := unix.Accept4(ln, unix.SOCK_CLOEXEC)
			return fd, err
		})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return os.NewSyscallError("accept", err)
		}
		go answer(fd)
	}
}

// answer sends back what comes until the other side ends.
func answer(fd int) {
	defer unix.Close(fd)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // only slower without
	buf := make([]byte, 1)
	for {
		n, err := retry(func() (int, error) { return unix.Read(fd, buf) })
		if err != nil || n == 0 {
			return
		}
		if _, err := retry(func() (int, error) { return unix.Write(fd, buf[:n]) }); err != nil {
			return
		}
	}
}

// measureRoundTrips measures round trips to a server for some time: on one connection, or
// each on a new one, whose making is then part of the round trip.
func measureRoundTrips(ctx context.Context, to netip.AddrPort, length time.Duration, connect bool) (quantiles, error) {
	var all []time.Duration
	roundTrip := func() error { return roundTripOnNew(to) }
	limit := maxConnects
	if !connect {
		fd, err := dial(to)
		if err != nil {
			return quantiles{}, err
		}
		defer unix.Close(fd)
		roundTrip, limit = func() error { return roundTripOn(fd) }, int(^uint(0)>>1)
	}
	for range warmUp {
		if err := roundTrip(); err != nil {
			return quantiles{}, err
		}
	}
	for end := time.Now().Add(length); len(all) < limit && ctx.Err() == nil; {
		start := time.Now()
		if err := roundTrip(); err != nil {
			return quantiles{}, err
		}
		now := time.Now()
		all = append(all, now.Sub(start))
		if now.After(end) {
			break
		}
	}
	return quantilesOf(all), ctx.Err()
}

func roundTripOnNew(to netip.AddrPort) error {
	fd, err := dial(to)
	if err != nil {
		return err
	}
	return errors.Join(roundTripOn(fd), unix.Close(fd))
}

func roundTripOn(fd int) error {
	buf := []byte{'?'}
	if _, err := retry(func() (int, error) { return unix.Write(fd, buf) }); err != nil {
		return os.NewSyscallError("write", err)
	}
	n, err := retry(func() (int, error) { return unix.Read(fd, buf) })
	if err != nil {
		return os.NewSyscallError("read", err)
	}
	if n != 1 || buf[0] != '?' {
		return fmt.Errorf("%w: %q", ErrAnswer, buf[:n])
	}
	return nil
}

func dial(to netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	timeout := unix.NsecToTimeval(ioTimeout.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout),
		connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}),
	)
	if err != nil {
		return -1, errors.Join(fmt.Errorf("connect to %s: %w", to, err), unix.Close(fd))
	}
	return fd, nil
}

// connect is connect(2), which goes on by itself when a signal interrupts it.
func connect(fd int, to unix.Sockaddr) error {
	err := unix.Connect(fd, to)
	if !errors.Is(err, unix.EINTR) {
		return err
	}
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := retry(func() (int, error) { return unix.Poll(ready, int(ioTimeout.Milliseconds())) })
	if err != nil {
		return err
	}
	if n == 0 {
		return unix.ETIMEDOUT
	}
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		err = unix.Errno(errno)
	}
	return err
}

// retry repeats a system call that a signal has interrupted; the runtime sends
// itself some.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
