// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package unixsocket_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sealane/sealane/internal/unixsocket"
)

// TestListenOnSeveralAtOnce: each socket is the one that was asked for, whoever else
// listens in the same directory at the same time.
func TestListenOnSeveralAtOnce(t *testing.T) {
	dir := t.TempDir()
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for range 50 {
				path := filepath.Join(dir, fmt.Sprint(i))
				l, err := unixsocket.Listen(path)
				if err != nil {
					t.Error(err)
					return
				}
				if conn, err := net.Dial("unix", path); err != nil {
					t.Error(err)
				} else if got, err := l.Accept(); err != nil {
					t.Error(err)
				} else {
					_, _ = conn.Close(), got.Close()
				}
				l.Close()
			}
		})
	}
	group.Wait()
}

func TestListenReplacesAnOlderDaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "run", "cni.sock")
	older, err := unixsocket.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	newer, err := unixsocket.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer newer.Close()
	older.Close()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatalf("the older daemon took the newer one's socket along: %v", err)
	}
	conn.Close()
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket's mode = %v, %v; want 0600", info.Mode(), err)
	}
	info, err = os.Stat(filepath.Dir(socket))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory's mode = %v, %v; want 0700", info.Mode(), err)
	}
	for _, bad := range []string{"relative", "/" + strings.Repeat("x", 107), filepath.Join(t.TempDir(), "x", strings.Repeat("y", 300), "s")} {
		if _, err := unixsocket.Listen(bad); err == nil {
			t.Errorf("listening on %q", bad)
		}
	}
}
