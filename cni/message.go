// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// ioTimeout bounds how long one end may take to send or read a message.
const ioTimeout = 5 * time.Second

// timeout is how long the daemon may work on the command. The kubelet asks for STATUS
// often, and waits for the answer.
func (c Command) timeout() time.Duration {
	if c == CommandStatus {
		return 5 * time.Second
	}
	return 60 * time.Second
}

// readMessage reads one JSON value of at most MaxMessage bytes.
func readMessage(r io.Reader, into any) error {
	limited := &io.LimitedReader{R: r, N: MaxMessage}
	err := json.NewDecoder(limited).Decode(into)
	if err != nil && limited.N <= 0 {
		return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, MaxMessage)
	}
	return err
}

// writeMessage writes one JSON value of at most MaxMessage bytes.
func writeMessage(conn net.Conn, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(data) > MaxMessage {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(data), MaxMessage)
	}
	deadline := conn.SetWriteDeadline(time.Now().Add(ioTimeout))
	_, err = conn.Write(data)
	return errors.Join(deadline, err)
}
