// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealane/sealane/daemonset/observe"
)

// daemon answers on a socket, and tells what it was asked.
func daemon(t *testing.T, answer http.HandlerFunc) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), observe.SocketName)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(answer)
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return socket
}

// TestMonitorEndsWithItsInput: what the CLI relies on when its connection breaks.
func TestMonitorEndsWithItsInput(t *testing.T) {
	gone := make(chan struct{})
	socket := daemon(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, r.URL.Query().Get("filter"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	})
	in, connection := io.Pipe()
	out := writerFunc(func(p []byte) (int, error) {
		if string(p) != `{"verdict":"denied"}`+"\n" {
			t.Errorf("printed %q", p)
		}
		return len(p), connection.Close()
	})
	if err := monitor(t.Context(), []string{"--socket", socket, "--until-eof", "--verdict=denied"}, in, out); err != nil {
		t.Error(err)
	}
	<-gone
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestExplain(t *testing.T) {
	socket := daemon(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.RawQuery; got != "from=10.0.0.1&port=53&protocol=17&to=fd00%3A%3A1" {
			t.Errorf("asked %s", got)
		}
		fmt.Fprint(w, `{"node":"n1","ingress":{"allowed":true,"dryRunAllowed":false}}`)
	})
	var out bytes.Buffer
	err := explain(t.Context(), []string{"--socket", socket, "--from=10.0.0.1", "--to=fd00::1", "--protocol=UDP", "--port=53"}, &out)
	if want := `{"node":"n1","ingress":{"allowed":true,"dryRunAllowed":false}}` + "\n"; err != nil || out.String() != want {
		t.Errorf("printed %s, error %v", out.String(), err)
	}
}

func TestObserveRefuses(t *testing.T) {
	for want, args := range map[string]string{
		"needs --from, --to":    "--from=10.0.0.1",
		"unknown protocol":      "--protocol=tpc",
		"unexpected":            "shop/web",
		"no daemon answers":     "--socket=/nowhere/x.sock --from=10.0.0.1 --to=10.0.0.2",
		"--port up to 65535":    "--from=10.0.0.1 --to=10.0.0.2 --port=65536",
		"flag provided but not": "--form=10.0.0.1",
	} {
		if err := explain(t.Context(), strings.Fields(args), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("explain %s: error %v, want %q", args, err, want)
		}
	}
	if err := monitor(t.Context(), []string{"--pod=web"}, nil, io.Discard); !errors.Is(err, observe.ErrFilter) {
		t.Errorf("monitor with a bad filter: error %v", err)
	}
	if err := run(t.Context(), []string{"monitor", "--socket=/nowhere/x.sock"}); !errors.Is(err, observe.ErrUnreachable) {
		t.Errorf("monitor without a daemon: error %v", err)
	}
}
