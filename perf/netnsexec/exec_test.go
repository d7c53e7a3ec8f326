// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package netnsexec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/sealane/sealane/internal/nettest"
)

// TestPrivilegedServeFails: the error says why a server did not start.
func TestPrivilegedServeFails(t *testing.T) {
	nettest.Privileged(t)
	ns := nettest.NewNS(t)
	if _, err := Serve(t.Context(), Netns(ns.Path), "sh", "-c", "echo no port >&2"); err == nil {
		t.Error("no error")
	} else if got := err.Error(); got != "start sh -c echo no port >&2: unexpected EOF: no port" {
		t.Errorf("got %q", got)
	}
}

// TestPrivilegedServe runs a server until it is stopped.
func TestPrivilegedServe(t *testing.T) {
	nettest.Privileged(t)
	n := Netns(nettest.NewNS(t).Path)
	file := t.TempDir() + "/ended"
	script := "sleep 60 >/dev/null & trap 'kill $!; echo >" + file + "; exit' TERM; echo starting; echo listening; wait"
	stop, err := Serve(t.Context(), n, "bash", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("it has ended before it was stopped: %v", err)
	}
	stop()
	if _, err := os.Stat(file); err != nil {
		t.Errorf("it was not asked to end: %v", err)
	}
}

func TestPrivilegedNetns(t *testing.T) {
	nettest.Privileged(t)
	name := fmt.Sprintf("sealane-perf-test-%d", os.Getpid())
	n, err := Make(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 2 { // what is gone is no error
			if err := n.Remove(); err != nil {
				t.Error(err)
			}
		}
		if _, err := os.Stat(string(n)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("left behind: %v", err)
		}
	})
	if _, err := Make(name); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made twice: %v", err)
	}
	// Of this thread: Make may have left the first one, which /proc/self shows, in the
	// namespace that it made.
	here, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	there, err := n.Run(t.Context(), "readlink", "/proc/self/ns/net")
	if err != nil || !strings.HasPrefix(string(there), "net:[") || strings.TrimSpace(string(there)) == here {
		t.Errorf("the command ran in %q, the test in %q: %v", there, here, err)
	}
}

func TestOutput(t *testing.T) {
	out, err := Output(Command(t.Context(), "sh", "-c", "echo said; echo why >&2"))
	if err != nil || string(out) != "said\n" {
		t.Errorf("got %q, %v", out, err)
	}
	_, err = Output(Command(t.Context(), "sh", "-c", "echo said; echo why >&2; exit 3"))
	if err == nil || !strings.HasSuffix(err.Error(), "exit status 3: why\nsaid") {
		t.Errorf("got %v", err)
	}
}

func TestNoNetns(t *testing.T) {
	if err := Netns("").Remove(); err != nil {
		t.Error(err)
	}
}
