// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package httpserver

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"
)

// TestIdleConnectionsKeepNobodyOut: thousands of connections, from one address and from
// many, that say nothing or not enough, do not keep a probe from its answer.
func TestIdleConnectionsKeepNobodyOut(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	s := Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })}
	go func() { done <- s.Serve(ctx, l) }()
	probe := func() {
		t.Helper()
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
		answer, err := client.Get("http://" + l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if body, err := io.ReadAll(answer.Body); err != nil || string(body) != "ok" {
			t.Fatalf("answer %q, error %v", body, err)
		}
	}
	for i := range 4000 {
		from := net.IPv4(127, 0, 0, 1)
		if i%2 == 0 {
			from = net.IPv4(127, 1, byte(i>>8), byte(i))
		}
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
		c, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i == 2000 {
			probe()
		}
	}
	probe()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestOnlyFor(t *testing.T) {
	known := func(a netip.Addr) bool { return a == netip.MustParseAddr("192.0.2.7") }
	h := OnlyFor(known, "see metrics.allowFrom", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "secret") }))
	for from, want := range map[string]int{
		"127.0.0.1:1": http.StatusOK, "[::1]:1": http.StatusOK, "192.0.2.7:1": http.StatusOK, "[::ffff:192.0.2.7]:1": http.StatusOK,
		"192.0.2.9:1": http.StatusOK, "192.0.2.8:1": http.StatusForbidden, "10.244.1.5:1": http.StatusForbidden, "@": http.StatusForbidden,
	} {
		here := context.WithValue(t.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 9754}))
		r := httptest.NewRequestWithContext(here, http.MethodGet, "/", nil)
		r.RemoteAddr = from
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want || (w.Code == http.StatusOK) != (w.Body.String() == "secret") {
			t.Errorf("%s: %d %q, want %d", from, w.Code, w.Body, want)
		}
	}
}

func TestCached(t *testing.T) {
	now, made := time.Unix(1000, 0), 0
	get := Cached(func() time.Time { return now }, time.Second, func() int { made++; return made })
	for _, step := range []struct {
		wait time.Duration
		want int
	}{{0, 1}, {0, 1}, {999 * time.Millisecond, 1}, {time.Millisecond, 2}, {-time.Hour, 3}, {0, 3}} {
		now = now.Add(step.wait)
		if got := get(); got != step.want {
			t.Errorf("after %v: result %d, want %d", step.wait, got, step.want)
		}
	}
}
