// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni

import (
	"context"
	"fmt"
	"net"
	"time"
)

// Client sends requests to the daemon.
type Client struct {
	// Socket is the path of the daemon's socket; empty means DefaultSocket.
	Socket string
}

// Do sends the request and waits for the response for as long as the daemon may work on the
// command. The error wraps ErrUnreachable if the daemon did not receive the request, and
// ErrInterrupted if it did not answer. If ctx ends first, the daemon stops working on the
// request.
func (c Client) Do(ctx context.Context, r Request) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Command.timeout()+ioTimeout)
	defer cancel()
	socket := c.Socket
	if socket == "" {
		socket = DefaultSocket
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return Response{}, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer conn.Close()
	// A deadline in the past makes reading and writing end with ctx.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := writeMessage(conn, r); err != nil {
		return Response{}, fmt.Errorf("%w: send request: %w", ErrInterrupted, err)
	}
	var response Response
	if err := readMessage(conn, &response); err != nil {
		return Response{}, fmt.Errorf("%w: read response: %w", ErrInterrupted, err)
	}
	return response, nil
}
