// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package process

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/overlay/backend"
)

// fakeDevices remembers its devices; it refuses one with an MTU of 9999.
type fakeDevices struct {
	mu  sync.Mutex
	all []Device
}

func (f *fakeDevices) Ensure(d Device) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.MTU == 9999 {
		return errors.New("no room")
	}
	f.all = append(slices.DeleteFunc(f.all, func(o Device) bool { return o.Name == d.Name }), d)
	return nil
}

func (f *fakeDevices) Delete(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = slices.DeleteFunc(f.all, func(o Device) bool { return o.Name == name })
	return nil
}

func (f *fakeDevices) List() []Device {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.all)
}

// serve starts a server and returns a function that stops it.
func serve(t *testing.T, socket string, mode backend.Type) (stop func()) {
	t.Helper()
	ln, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := &Server{Mode: mode, Devices: &fakeDevices{}, Logger: slog.New(slog.DiscardHandler)}
	go func() { done <- s.Serve(ctx, ln) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve = %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("Serve does not end")
		}
	})
	t.Cleanup(stop)
	return stop
}

func TestRoundTrip(t *testing.T) {
	c := Client{Socket: filepath.Join(t.TempDir(), "s")}
	serve(t, c.Socket, backend.UserSpace)
	d := Device{Name: "sealane-wg01", MTU: 1420, Port: 51872}
	for range 2 {
		if err := c.Ensure(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	mode, got, err := c.List(t.Context())
	if diff := cmp.Diff([]Device{d}, got); err != nil || mode != backend.UserSpace || diff != "" {
		t.Errorf("list = %s, %v (-want +got):\n%s", mode, err, diff)
	}
	d.MTU = 9999
	if err := c.Ensure(t.Context(), d); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "no room") {
		t.Errorf("error = %v, want ErrRefused with the reason", err)
	}
	for range 2 {
		if err := c.Delete(t.Context(), d.Name); err != nil {
			t.Fatal(err)
		}
	}
	if _, got, err := c.List(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("list = %v, %v", got, err)
	}
	info, err := os.Stat(c.Socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v; want root's alone", info.Mode(), err)
	}
}

func TestRefusals(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	serve(t, socket, backend.UserSpace)
	for _, d := range []Device{
		{Name: "eth0", MTU: 1420, Port: 1},
		{Name: "sealane-wg02", MTU: 1420, Port: 1},
		{Name: "../sealane-wg00", MTU: 1420, Port: 1},
		{Name: "sealane-wg00\n", MTU: 1420, Port: 1},
		{Name: "sealane-wg00", MTU: 100, Port: 1},
		{Name: "sealane-wg00", MTU: 1420},
	} {
		// Neither the client nor the server accepts it.
		if err := (Client{Socket: socket}).Ensure(t.Context(), d); !errors.Is(err, ErrRequest) {
			t.Errorf("client: %+v = %v, want ErrRequest", d, err)
		}
		if got := raw(t, socket, Request{Op: opEnsure, Device: d}); got.Error == "" || len(got.Devices) != 0 {
			t.Errorf("server: %+v = %+v, want an error", d, got)
		}
	}
	if got := raw(t, socket, Request{Op: "reboot"}); !strings.Contains(got.Error, `"reboot"`) {
		t.Errorf("unknown operation: %+v", got)
	}
	if got := raw(t, socket, "not a request"); got.Error == "" {
		t.Errorf("no JSON object: %+v", got)
	}
}

// raw sends requests that the client would refuse to send.
func raw(t *testing.T, socket string, request any) Response {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	var r Response
	if err := errors.Join(json.NewEncoder(conn).Encode(request), json.NewDecoder(conn).Decode(&r)); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestIdleWhereTheKernelServes(t *testing.T) {
	c := Client{Socket: filepath.Join(t.TempDir(), "s")}
	serve(t, c.Socket, backend.Kernel)
	if mode, _, err := c.List(t.Context()); err != nil || mode != backend.Kernel {
		t.Errorf("list = %s, %v", mode, err)
	}
	if err := c.Ensure(t.Context(), Device{Name: "sealane-wg00", MTU: 1420, Port: 1}); !errors.Is(err, ErrRefused) {
		t.Errorf("ensure = %v, want ErrRefused", err)
	}
}

// TestOlderProcess lists the devices of a process that was started before its mode
// was named "user-space": it outlives upgrades of the agent.
func TestOlderProcess(t *testing.T) {
	c := Client{Socket: filepath.Join(t.TempDir(), "s")}
	ln, err := net.Listen("unix", c.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	done := make(chan error, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			done <- err
			return
		}
		var r Request
		err = json.NewDecoder(conn).Decode(&r)
		_, written := io.WriteString(conn, `{"mode":"userspace","devices":[{"name":"sealane-wg00","mtu":1420,"port":51871}]}`+"\n")
		done <- errors.Join(err, written, conn.Close())
	}()
	mode, devices, err := c.List(t.Context())
	if err != nil || mode != backend.UserSpace || len(devices) != 1 {
		t.Errorf("list = %q, %v, %v; want %q and one device", mode, devices, err, backend.UserSpace)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestNobodyListens(t *testing.T) {
	c := Client{Socket: filepath.Join(t.TempDir(), "s")}
	if _, _, err := c.List(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("no socket: %v, want ErrUnavailable", err)
	}
	stop := serve(t, c.Socket, backend.UserSpace)
	if _, err := Listen(c.Socket); !errors.Is(err, ErrRequest) {
		t.Errorf("second process: %v, want ErrRequest", err)
	}
	stop()
	// A killed process leaves this socket behind.
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.Socket})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.List(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("old socket: %v, want ErrUnavailable", err)
	}
	serve(t, c.Socket, backend.UserSpace)
	if _, _, err := c.List(t.Context()); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

func TestClientEndsWithItsContext(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket) // nobody ever answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, _, err := (Client{Socket: socket}).List(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error = %v, want the context's", err)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("took %s", d)
	}
}

func TestWatchReportsEachStart(t *testing.T) {
	c := Client{Socket: filepath.Join(t.TempDir(), "s")}
	ctx, cancel := context.WithCancel(t.Context())
	started := c.Watch(ctx)
	for i := range 3 {
		stop := serve(t, c.Socket, backend.UserSpace)
		select {
		case <-started:
		case <-time.After(5 * time.Second):
			t.Fatalf("start %d was not reported", i)
		}
		select {
		case <-started:
			t.Errorf("start %d was reported twice", i)
		case <-time.After(2 * redial):
		}
		stop()
	}
	cancel()
	select {
	case _, open := <-started:
		if open {
			t.Error("a report after the end")
		}
	case <-time.After(5 * time.Second):
		t.Error("Watch does not end")
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"op":"ensure","device":{"name":"sealane-wg00","mtu":1420,"port":51871}}`))
	f.Add([]byte(`{"op":"delete","device":{"name":"eth0"}}`))
	f.Add([]byte(`{"op":"list"}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r Request
		if json.Unmarshal(data, &r) != nil || r.validate() != nil {
			return
		}
		if r.Op != opList && r.Op != opWatch && !strings.HasPrefix(r.Device.Name, "sealane-wg") {
			t.Errorf("%q lets the process touch %q", data, r.Device.Name)
		}
	})
}
