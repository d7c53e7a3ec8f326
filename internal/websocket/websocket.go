// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package websocket is the client's side of the WebSocket protocol (RFC 6455),
// on a connection that HTTP has opened: as much of it as the streams of the
// Kubernetes API need. Messages are binary, and nothing is compressed.
package websocket

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// ErrProtocol says that the other side does not speak WebSocket as it should.
var ErrProtocol = errors.New("websocket: protocol error")

// maxMessage bounds a message, in bytes: a stream is cut into small ones.
const maxMessage = 1 << 20

// The kinds of frame (RFC 6455, section 11.8).
const (
	continuation = 0x0
	text         = 0x1
	binaryData   = 0x2
	closing      = 0x8
	ping         = 0x9
	pong         = 0xa
)

// Offer puts the headers of an upgrade onto a request, for one of the
// subprotocols, the preferred first. It returns the key for Accept.
func Offer(h http.Header, protocols ...string) (key string) {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	key = base64.StdEncoding.EncodeToString(nonce[:])
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", "websocket")
	h.Set("Sec-WebSocket-Version", "13")
	h.Set("Sec-WebSocket-Key", key)
	h.Set("Sec-WebSocket-Protocol", strings.Join(protocols, ", "))
	return key
}

// acceptance is appended to the key (RFC 6455, section 1.3).
const acceptance = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// Accept makes a Conn of the answer to a request with Offer's headers: one with
// status 101. The Conn closes the answer's body.
func Accept(r *http.Response, key string) (*Conn, error) {
	stream, ok := r.Body.(io.ReadWriteCloser)
	sum := sha1.Sum([]byte(key + acceptance))
	switch {
	case r.StatusCode != http.StatusSwitchingProtocols || !ok:
		return nil, fmt.Errorf("%w: status %s", ErrProtocol, r.Status)
	case r.Header.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]):
		return nil, fmt.Errorf("%w: wrong Sec-WebSocket-Accept", ErrProtocol)
	}
	return &Conn{stream: stream, Protocol: r.Header.Get("Sec-WebSocket-Protocol")}, nil
}

// Conn is an open connection. One goroutine may read while another one writes.
type Conn struct {
	Protocol string // that the server has chosen
	stream   io.ReadWriteCloser
	write    sync.Mutex
}

// Read returns the next message. It answers pings, and returns io.EOF when the
// other side has closed the connection as it should.
func (c *Conn) Read() ([]byte, error) {
	var message []byte
	for {
		f, err := readFrame(c.stream)
		if err != nil {
			return nil, err
		}
		switch f.kind {
		case closing:
			return nil, errors.Join(io.EOF, c.send(closing, f.payload))
		case ping:
			if err := c.send(pong, f.payload); err != nil {
				return nil, err
			}
		case pong:
		case continuation, text, binaryData:
			if message = append(message, f.payload...); len(message) > maxMessage {
				return nil, fmt.Errorf("%w: a message of more than %d bytes", ErrProtocol, maxMessage)
			}
			if f.last {
				return message, nil
			}
		default:
			return nil, fmt.Errorf("%w: frame of kind %d", ErrProtocol, f.kind)
		}
	}
}

// Write sends a message.
func (c *Conn) Write(message []byte) error { return c.send(binaryData, message) }

// Close says goodbye and closes the connection.
func (c *Conn) Close() error {
	const normal = 1000
	_ = c.send(closing, binary.BigEndian.AppendUint16(nil, normal)) // the other side may be gone
	return c.stream.Close()
}

func (c *Conn) send(kind byte, payload []byte) error {
	var mask [4]byte
	_, _ = rand.Read(mask[:])
	frame := append(header(kind, len(payload)), mask[:]...)
	for i, b := range payload {
		frame = append(frame, b^mask[i%len(mask)])
	}
	c.write.Lock()
	defer c.write.Unlock()
	if _, err := c.stream.Write(frame); err != nil {
		return fmt.Errorf("write to websocket: %w", err)
	}
	return nil
}

const (
	final  = 0x80 // in the first byte: the last frame of its message
	masked = 0x80 // in the second byte
)

// header begins a frame that is whole and masked, as all of a client's are.
func header(kind byte, length int) []byte {
	switch {
	case length < 126:
		return []byte{final | kind, masked | byte(length)}
	case length < 1<<16:
		return binary.BigEndian.AppendUint16([]byte{final | kind, masked | 126}, uint16(length))
	}
	return binary.BigEndian.AppendUint64([]byte{final | kind, masked | 127}, uint64(length))
}

type frame struct {
	kind    byte
	last    bool
	payload []byte
}

func readFrame(r io.Reader) (frame, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, fmt.Errorf("read websocket: %w", noEnd(err))
	}
	f := frame{kind: head[0] & 0xf, last: head[0]&final != 0}
	if head[0]&0x70 != 0 || head[1]&masked != 0 {
		return f, fmt.Errorf("%w: a frame with an extension, or with a mask", ErrProtocol)
	}
	length, err := readLength(r, head[1])
	if err != nil {
		return f, fmt.Errorf("read websocket: %w", noEnd(err))
	}
	if length > maxMessage {
		return f, fmt.Errorf("%w: a frame of %d bytes", ErrProtocol, length)
	}
	f.payload = make([]byte, length)
	if _, err := io.ReadFull(r, f.payload); err != nil {
		return f, fmt.Errorf("read websocket: %w", noEnd(err))
	}
	return f, nil
}

func readLength(r io.Reader, short byte) (uint64, error) {
	var long [8]byte
	var at int
	switch short {
	case 126:
		at = 6
	case 127:
		at = 0
	default:
		return uint64(short), nil
	}
	_, err := io.ReadFull(r, long[at:])
	return binary.BigEndian.Uint64(long[:]), err
}

// noEnd makes an end without a goodbye an error like others.
func noEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
