// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sealane/sealane/overlay/backend"
)

// maxMessage is the largest size of a request or response, in bytes.
const maxMessage = 1 << 16

// Devices makes WireGuard devices. Ensure and Delete are idempotent.
type Devices interface {
	Ensure(d Device) error
	Delete(name string) error
	List() []Device
}

// Server answers the daemon.
type Server struct {
	Mode    backend.Type
	Devices Devices // unused if Mode is Kernel
	Logger  *slog.Logger
}

// Listen opens the socket at path for root alone. It replaces a socket file that nothing
// listens on, and returns ErrRequest if something does.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("create directory of socket: %w", err)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("%w: another process listens on %s", ErrRequest, path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect socket: %w", err), ln.Close())
	}
	return ln, nil
}

// Serve answers requests until ctx ends, then closes the listener and all
// connections and returns nil.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()                    // before the wait: watchers stay until ctx ends
	defer func() { _ = ln.Close() }() // it may be closed already
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	for {
		conn, err := ln.Accept()
		switch {
		case err == nil:
			wg.Go(func() { s.serve(ctx, conn) })
		case ctx.Err() != nil:
			return nil
		default:
			return fmt.Errorf("accept: %w", err)
		}
	}
}

func (s *Server) serve(ctx context.Context, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	if ctx.Err() != nil {
		return // a watcher reconnects, because it does not know why its connection ended
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return
	}
	var r Request
	err := json.NewDecoder(io.LimitReader(conn, maxMessage)).Decode(&r)
	if err == nil {
		err = s.do(r)
	}
	resp := Response{Mode: s.Mode}
	if s.Mode == backend.UserSpace {
		resp.Devices = s.Devices.List()
	}
	if err != nil {
		s.Logger.Warn("request failed", "op", r.Op, "device", r.Device.Name, "error", err)
		resp.Error = err.Error()
	}
	if err := json.NewEncoder(conn).Encode(resp); err != nil || r.Op != opWatch {
		return
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, conn) // until either side closes
}

func (s *Server) do(r Request) error {
	if err := r.validate(); err != nil {
		return err
	}
	if s.Mode == backend.Kernel && (r.Op == opEnsure || r.Op == opDelete) {
		return fmt.Errorf("%w: the kernel serves WireGuard on this node, use it", ErrRequest)
	}
	switch r.Op {
	case opEnsure:
		return s.Devices.Ensure(r.Device)
	case opDelete:
		return s.Devices.Delete(r.Device.Name)
	}
	return nil
}
