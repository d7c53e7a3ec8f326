// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/sealane/sealane/internal/signal"
	"github.com/sealane/sealane/overlay/backend"
)

const (
	// requestTimeout bounds one request; creating a device takes milliseconds.
	requestTimeout = 10 * time.Second
	// redial is the interval at which Watch looks for a process that does not answer.
	redial = 200 * time.Millisecond
)

// Client talks to the process. It holds no connection.
type Client struct {
	Socket string // path; empty means DefaultSocket
}

// Ensure makes the device exist and ready to be configured; one that exists already keeps
// its keys and peers.
func (c Client) Ensure(ctx context.Context, d Device) error {
	_, err := c.call(ctx, Request{Op: opEnsure, Device: d})
	return err
}

// Delete removes the device; a missing device is no error.
func (c Client) Delete(ctx context.Context, name string) error {
	_, err := c.call(ctx, Request{Op: opDelete, Device: Device{Name: name}})
	return err
}

// List returns what serves WireGuard on this node, and the devices of the process.
func (c Client) List(ctx context.Context) (backend.Type, []Device, error) {
	r, err := c.call(ctx, Request{Op: opList})
	return r.Mode, r.Devices, err
}

// Watch reports each start of the process, including the first: its devices have lost their
// keys and peers. The channel holds one report at most and is closed when ctx ends.
func (c Client) Watch(ctx context.Context) <-chan struct{} {
	started := signal.New()
	go func() {
		defer close(started)
		tick := time.NewTicker(redial)
		defer tick.Stop()
		for ctx.Err() == nil {
			c.follow(ctx, started)
			select {
			case <-ctx.Done():
			case <-tick.C: // nothing notifies of a new listener
			}
		}
	}()
	return started
}

// follow reports a process that answers, and returns when that process has ended.
func (c Client) follow(ctx context.Context, started signal.Signal) {
	conn, err := c.dial(ctx)
	if err != nil {
		return
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer func() { _ = conn.Close() }()
	if _, err := exchange(conn, Request{Op: opWatch}); err != nil {
		return
	}
	started.Raise()
	_, _ = io.Copy(io.Discard, conn) // returns when the process ends
}

func (c Client) call(ctx context.Context, r Request) (Response, error) {
	if err := r.validate(); err != nil {
		return Response{}, err
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return Response{}, err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return Response{}, fmt.Errorf("ask sealane-wireguard to %s %s: %w", r.Op, r.Device.Name, err)
	}
	resp, err := exchange(conn, r)
	if err != nil {
		return resp, fmt.Errorf("ask sealane-wireguard to %s %s: %w", r.Op, r.Device.Name, errors.Join(err, ctx.Err()))
	}
	return resp, nil
}

func (c Client) dial(ctx context.Context) (net.Conn, error) {
	path := c.Socket
	if path == "" {
		path = DefaultSocket
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return conn, nil
}

func exchange(conn net.Conn, r Request) (Response, error) {
	var resp Response
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return resp, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err := json.NewDecoder(io.LimitReader(conn, maxMessage)).Decode(&resp); err != nil {
		return resp, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if resp.Error != "" {
		return resp, fmt.Errorf("%w: %s", ErrRefused, resp.Error)
	}
	return resp, nil
}
