// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package websocket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// stream is a connection whose other side has said all that it will.
type stream struct {
	io.Reader
	sent   bytes.Buffer
	closed bool
}

func (s *stream) Write(p []byte) (int, error) { return s.sent.Write(p) }
func (s *stream) Close() error                { s.closed = true; return nil }

// served is a frame of the server: not masked.
func served(first byte, payload string) string {
	h := header(first&0xf, len(payload))
	h[0], h[1] = first, h[1]&^masked
	return string(h) + payload
}

func accepted(t *testing.T, said string) (*Conn, *stream) {
	t.Helper()
	s := &stream{Reader: strings.NewReader(said)}
	// The key and its answer are those of RFC 6455, section 1.3.
	c, err := Accept(&http.Response{
		StatusCode: http.StatusSwitchingProtocols, Body: s,
		Header: http.Header{"Sec-Websocket-Accept": {"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}, "Sec-Websocket-Protocol": {"b"}},
	}, "dGhlIHNhbXBsZSBub25jZQ==")
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

func TestMessages(t *testing.T) {
	long, longer := strings.Repeat("x", 300), strings.Repeat("y", 70_000)
	c, s := accepted(t, served(final|binaryData, "one")+served(final|ping, "are you there?")+served(binaryData, "tw")+
		served(final|pong, "")+served(final|continuation, "o")+served(final|text, long)+served(final|binaryData, longer)+
		served(final|binaryData, "")+served(final|closing, "\x03\xe8"))
	var got []string
	for {
		m, err := c.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(m))
	}
	if diff := cmp.Diff([]string{"one", "two", long, longer, ""}, got); diff != "" {
		t.Error(diff)
	}
	if c.Protocol != "b" {
		t.Errorf("protocol %q", c.Protocol)
	}
	for _, want := range []struct {
		kind    byte
		payload string
	}{{pong, "are you there?"}, {closing, "\x03\xe8"}} {
		kind, payload := unmask(t, &s.sent)
		if kind != want.kind || payload != want.payload {
			t.Errorf("answered %d %q, want %d %q", kind, payload, want.kind, want.payload)
		}
	}
}

// unmask reads a frame of a client's.
func unmask(t *testing.T, r io.Reader) (kind byte, payload string) {
	t.Helper()
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		t.Fatal(err)
	}
	if head[1]&masked == 0 {
		t.Fatal("a client's frame without a mask")
	}
	n, err := readLength(r, head[1]&^masked)
	if err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, 4+n)
	if _, err := io.ReadFull(r, raw); err != nil {
		t.Fatal(err)
	}
	for i := range raw[4:] {
		raw[4+i] ^= raw[i%4]
	}
	return head[0] & 0xf, string(raw[4:])
}

func TestWrite(t *testing.T) {
	c, s := accepted(t, "")
	messages := []string{"", "short", strings.Repeat("a", 126), strings.Repeat("b", 1<<16)}
	for _, m := range messages {
		if err := c.Write([]byte(m)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil || !s.closed {
		t.Errorf("closed %v, error %v", s.closed, err)
	}
	for _, want := range messages {
		if kind, got := unmask(t, &s.sent); kind != binaryData || got != want {
			t.Errorf("wrote %d of %d bytes, want %d", kind, len(got), len(want))
		}
	}
	if kind, got := unmask(t, &s.sent); kind != closing || binary.BigEndian.Uint16([]byte(got)) != 1000 {
		t.Errorf("ended with %d %q", kind, got)
	}
}

func TestReadRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		said string
		want error
	}{
		"an end without a goodbye": {"", io.ErrUnexpectedEOF},
		"a cut header":             {"\x82", io.ErrUnexpectedEOF},
		"a cut length":             {"\x82\x7e\x01", io.ErrUnexpectedEOF},
		"a cut payload":            {"\x82\x05abc", io.ErrUnexpectedEOF},
		"a mask":                   {"\x82\x81\x00\x00\x00\x00a", ErrProtocol},
		"an extension":             {"\xc2\x01a", ErrProtocol},
		"an unknown kind":          {"\x83\x01a", ErrProtocol},
		"a huge frame":             {"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", ErrProtocol},
		"an endless message":       {strings.Repeat(served(binaryData, strings.Repeat("z", 1<<19)), 3), ErrProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := accepted(t, tc.said)
			if _, err := c.Read(); !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
		})
	}
}

func TestAcceptRefuses(t *testing.T) {
	key := Offer(http.Header{}, "a")
	for name, r := range map[string]*http.Response{
		"another status": {StatusCode: http.StatusOK, Body: &stream{}},
		"no stream":      {StatusCode: http.StatusSwitchingProtocols, Body: http.NoBody},
		"another key":    {StatusCode: http.StatusSwitchingProtocols, Body: &stream{}, Header: http.Header{"Sec-Websocket-Accept": {"x"}}},
	} {
		if _, err := Accept(r, key); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(served(final|binaryData, "one") + served(final|ping, "x") + served(final|closing, "")))
	f.Add([]byte(served(binaryData, "tw") + served(final|continuation, "o")))
	f.Add([]byte("\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, said []byte) {
		c := &Conn{stream: &stream{Reader: bytes.NewReader(said)}}
		for total := 0; ; {
			m, err := c.Read()
			if err != nil {
				return
			}
			if total += len(m); total > len(said) {
				t.Fatalf("%d bytes of messages out of %d", total, len(said))
			}
		}
	})
}
