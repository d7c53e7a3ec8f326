// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"bytes"
	"errors"
	"flag"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealane/sealane/overlay/backend"
	"github.com/sealane/sealane/overlay/wireguard/process"
)

func TestParse(t *testing.T) {
	o, err := parse([]string{"--socket", "/x", "--remove-on-exit", "--log-level", "warn"})
	if want := (options{socket: "/x", removeOnExit: true, level: slog.LevelWarn}); err != nil || o != want {
		t.Errorf("parse = %+v, %v; want %+v", o, err, want)
	}
	if o, err := parse(nil); err != nil || o.socket != process.DefaultSocket {
		t.Errorf("parse of nothing = %+v, %v", o, err)
	}
	for _, tt := range []struct {
		args []string
		word string
	}{
		{[]string{"sealane-wg00"}, `"sealane-wg00"`},
		{[]string{"--sockets", "/x"}, "sockets"},
		{[]string{"--log-level", "loud"}, "loud"},
	} {
		if _, err := parse(tt.args); err == nil || !strings.Contains(err.Error(), tt.word) {
			t.Errorf("parse(%q) = %v, want an error with %s", tt.args, err, tt.word)
		}
	}
	if _, err := parse([]string{"--help"}); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("--help = %v", err)
	}
}

func TestCheck(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "wireguard.sock")
	var out bytes.Buffer
	if err := run(t.Context(), []string{"--check", "--socket", socket}, &out); !errors.Is(err, process.ErrUnavailable) {
		t.Errorf("check without a process = %v, want ErrUnavailable", err)
	}
	ln, err := process.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	s := &process.Server{Mode: backend.Kernel, Logger: slog.New(slog.DiscardHandler)}
	go func() { done <- s.Serve(t.Context(), ln) }()
	if err := run(t.Context(), []string{"--check", "--socket", socket}, &out); err != nil || out.String() != "mode kernel\n" {
		t.Errorf("check = %v, printed %q", err, out.String())
	}
}
