// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/cni/cnitest"
	"github.com/sealane/sealane/internal/unixsocket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const kubeletArgs = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=u-1"

// request returns a request about the device eth0 of a container.
func request(command cni.Command, container string) cni.Request {
	return cni.Request{
		Command: command, ContainerID: container, IfName: "eth0", Netns: "/run/netns/" + container,
		Args: kubeletArgs, Path: "/opt/cni/bin", Config: json.RawMessage(minimal),
	}
}

// daemon is a Serve that runs until the test ends.
type daemon struct {
	client cni.Client
	stop   context.CancelFunc
	done   chan error
	log    *bytes.Buffer // read it only after the end
}

func serve(t *testing.T, h cni.Handler) *daemon {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "cni.sock")
	l, err := unixsocket.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &daemon{client: cni.Client{Socket: socket}, stop: cancel, done: make(chan error, 1), log: &bytes.Buffer{}}
	log := slog.New(slog.NewTextHandler(d.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	go func() { d.done <- cni.Serve(ctx, l, h, log) }()
	t.Cleanup(func() { d.end(t) })
	return d
}

// end stops the daemon and waits for it.
func (d *daemon) end(t *testing.T) {
	t.Helper()
	d.stop()
	if err := <-d.done; err != nil {
		t.Errorf("serve: %v", err)
	}
	d.done <- nil // for the next call
}

// do sends the request, and fails the test if there is no response.
func (d *daemon) do(t *testing.T, r cni.Request) cni.Response {
	t.Helper()
	response, err := d.client.Do(t.Context(), r)
	if err != nil {
		t.Fatalf("%s: %v", r.Command, err)
	}
	return response
}

func TestServeCarriesEveryCommand(t *testing.T) {
	h := &cnitest.Handler{}
	d := serve(t, h)
	added := d.do(t, request(cni.CommandAdd, "c1"))
	attachment := cni.Attachment{
		ContainerID: "c1", IfName: "eth0", Netns: "/run/netns/c1", Network: "sealane",
		Pod: cni.PodRef{Namespace: "default", Name: "web", UID: "u-1"},
	}
	wantResult(t, added, cnitest.Result(attachment, 1))
	if diff := cmp.Diff([]cni.Attachment{attachment}, h.Attachments()); diff != "" {
		t.Errorf("attachments (-want +got):\n%s", diff)
	}
	wantResult(t, d.do(t, request(cni.CommandAdd, "c1")), cnitest.Result(attachment, 1)) // again
	wantResult(t, d.do(t, request(cni.CommandAdd, "c2")), cnitest.Result(cni.Attachment{IfName: "eth0", Netns: "/run/netns/c2"}, 2))

	check := request(cni.CommandCheck, "c1")
	check.Config = withField("prevResult", string(added.Result))
	for name, r := range map[string]cni.Request{
		"status": {Command: cni.CommandStatus, Config: json.RawMessage(minimal)},
		"check":  check, "check without result": request(cni.CommandCheck, "c1"),
	} {
		if got := d.do(t, r); got.Error != nil {
			t.Errorf("%s: %v", name, got.Error)
		}
	}
	check.ContainerID = "c2" // the result belongs to another attachment
	wantWire(t, d.do(t, check), types.ErrInternal, "the runtime says")
	check.ContainerID = "c3"
	wantWire(t, d.do(t, check), types.ErrUnknownContainer, "check c3", "pod is not connected")

	gc := cni.Request{Command: cni.CommandGC, Config: withField("cni.dev/valid-attachments", `[{"containerID":"c2","ifname":"eth0"}]`)}
	if got := d.do(t, gc); got.Error != nil {
		t.Fatal(got.Error)
	}
	if got := h.Attachments(); len(got) != 1 || got[0].ContainerID != "c2" {
		t.Errorf("after GC: %v", got)
	}
	gc.Config = json.RawMessage(minimal)
	wantWire(t, d.do(t, gc), types.ErrInvalidNetworkConfig, "nothing was collected")

	for _, container := range []string{"c2", "c2", "never-was"} {
		if got := d.do(t, request(cni.CommandDel, container)); got.Error != nil {
			t.Errorf("del %s: %v", container, got.Error)
		}
	}
	if got := h.Attachments(); len(got) != 0 {
		t.Errorf("after DEL: %v", got)
	}
}

func TestServeRefuses(t *testing.T) {
	d := serve(t, &cnitest.Handler{})
	change := func(f func(*cni.Request)) cni.Request {
		r := request(cni.CommandAdd, "c1")
		f(&r)
		return r
	}
	for name, tc := range map[string]struct {
		request cni.Request
		code    uint
		says    string
	}{
		"unknown command": {change(func(r *cni.Request) { r.Command = "EAT" }), types.ErrInvalidEnvironmentVariables, `CNI_COMMAND is "EAT"`},
		"bad container":   {change(func(r *cni.Request) { r.ContainerID = "../x" }), types.ErrInvalidEnvironmentVariables, `CNI_CONTAINERID is "../x"`},
		"no interface":    {change(func(r *cni.Request) { r.IfName = "" }), types.ErrInvalidEnvironmentVariables, `CNI_IFNAME is ""`},
		"no namespace":    {change(func(r *cni.Request) { r.Netns = "" }), types.ErrInvalidEnvironmentVariables, `CNI_NETNS is ""`},
		"bad arguments":   {change(func(r *cni.Request) { r.Args = "x" }), types.ErrInvalidEnvironmentVariables, "CNI_ARGS"},
		"bad config":      {change(func(r *cni.Request) { r.Config = json.RawMessage(`{"a":1}`) }), types.ErrUnsupportedField, `"a"`},
		"no config":       {change(func(r *cni.Request) { r.Config = nil }), types.ErrDecodingFailure, "not a JSON object"},
	} {
		t.Run(name, func(t *testing.T) { wantWire(t, d.do(t, tc.request), tc.code, tc.says) })
	}
	// A DEL checks only the name.
	del := request(cni.CommandDel, "c1")
	del.Netns, del.Args, del.Config = "", "x", json.RawMessage(`{"a":1}`)
	if got := d.do(t, del); got.Error != nil {
		t.Errorf("DEL with broken input: %v", got.Error)
	}
}

func TestErrorsKeepTheirCode(t *testing.T) {
	h := &cnitest.Handler{}
	var fault error
	h.Fault = func(context.Context, cni.Command, cni.Attachment) error { return fault }
	d := serve(t, h)
	status := cni.Request{Command: cni.CommandStatus}
	for _, tc := range []struct {
		fault              error
		add, status        uint
		message, inDetails string
	}{
		{errors.New("no luck"), types.ErrInternal, types.ErrPluginNotAvailable, "no luck", ""},
		{fmt.Errorf("%w: no key yet", cni.ErrNotReady), types.ErrTryAgainLater, types.ErrPluginNotAvailable, "no key yet", ""},
		{fmt.Errorf("%w: lane lost", cni.ErrLimited), types.ErrLimitedConnectivity, types.ErrLimitedConnectivity, "lane lost", ""},
		{types.NewError(123, "foreign", "detail"), 123, types.ErrPluginNotAvailable, "foreign", ""},
		{&cni.Error{Code: 11, Err: errors.New("pool is empty"), Remedy: "make room"}, 11, types.ErrPluginNotAvailable, "pool is empty", "make room"},
		{&cni.Error{Code: 12, Err: errors.New("bare")}, 12, types.ErrPluginNotAvailable, "bare", ""},
	} {
		fault = tc.fault
		wantWire(t, d.do(t, request(cni.CommandAdd, "c1")), tc.add, tc.message, tc.inDetails, "connect pod default/web")
		wantWire(t, d.do(t, status), tc.status, tc.message, tc.inDetails)
		if got := d.do(t, request(cni.CommandDel, "c1")); got.Error.Code != cni.CodeOf(tc.fault) || got.Error.Details != tc.inDetails && tc.inDetails != "" {
			t.Errorf("DEL with %v = %+v", tc.fault, got.Error)
		}
	}
}

func TestServeCancelsWhenThePluginGoesAway(t *testing.T) {
	entered, left := make(chan struct{}), make(chan error)
	h := &cnitest.Handler{Fault: func(ctx context.Context, command cni.Command, _ cni.Attachment) error {
		if command != cni.CommandAdd {
			return nil
		}
		entered <- struct{}{}
		<-ctx.Done()
		left <- ctx.Err()
		return ctx.Err()
	}}
	d := serve(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() {
		_, err := d.client.Do(ctx, request(cni.CommandAdd, "c1"))
		result <- err
	}()
	<-entered
	cancel()
	if err := <-result; !errors.Is(err, cni.ErrInterrupted) {
		t.Errorf("client: %v, want ErrInterrupted", err)
	}
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("handler's context: %v, want Canceled", err)
	}
}

func TestServeUndoesAnAddThatNobodyWaitsFor(t *testing.T) {
	entered, goOn, undone := make(chan struct{}), make(chan struct{}), make(chan string, 1)
	h := &cnitest.Handler{Fault: func(_ context.Context, command cni.Command, a cni.Attachment) error {
		switch command {
		case cni.CommandAdd:
			entered <- struct{}{}
			<-goOn
		case cni.CommandDel:
			undone <- a.ContainerID
		}
		return nil // also when cancelled: the Add has just finished
	}}
	d := serve(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() {
		_, err := d.client.Do(ctx, request(cni.CommandAdd, "c1"))
		result <- err
	}()
	<-entered
	cancel()
	<-result // the connection is closed
	close(goOn)
	if got := <-undone; got != "c1" {
		t.Errorf("undone: %q", got)
	}
	d.end(t)
	if got := h.Attachments(); len(got) != 0 {
		t.Errorf("a failed ADD left %v", got)
	}
}

func TestServeEndsADelThoughThePluginGoesAway(t *testing.T) {
	entered, goOn := make(chan struct{}), make(chan struct{})
	h := &cnitest.Handler{}
	d := serve(t, h)
	d.do(t, request(cni.CommandAdd, "c1"))
	h.Fault = func(ctx context.Context, _ cni.Command, _ cni.Attachment) error {
		entered <- struct{}{}
		<-goOn
		return ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() {
		_, err := d.client.Do(ctx, request(cni.CommandDel, "c1"))
		result <- err
	}()
	<-entered
	cancel()
	<-result
	d.stop() // the end of the daemon does not cancel it either, for a while
	close(goOn)
	d.end(t)
	if got := h.Attachments(); len(got) != 0 {
		t.Errorf("DEL left %v", got)
	}
}

func TestServeNeverWorksTwiceOnOneAttachment(t *testing.T) {
	h := &cnitest.Handler{}
	d := serve(t, h)
	var all sync.WaitGroup
	for i := range 24 {
		command := []cni.Command{cni.CommandAdd, cni.CommandDel, cni.CommandCheck}[i%3]
		all.Go(func() {
			for range 10 {
				if _, err := d.client.Do(t.Context(), request(command, fmt.Sprint("c", i%2))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if h.Overlapped() {
		t.Error("two calls worked on one attachment at once")
	}

	// A request that waits too long gets an error.
	entered, goOn := make(chan struct{}), make(chan struct{})
	h.Fault = func(ctx context.Context, command cni.Command, _ cni.Attachment) error {
		if command == cni.CommandAdd { // not the one that waits, if its turn still comes
			entered <- struct{}{}
			<-goOn
		}
		return ctx.Err()
	}
	all.Go(func() { d.do(t, request(cni.CommandAdd, "c1")) })
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := d.client.Do(ctx, request(cni.CommandCheck, "c1")); !errors.Is(err, cni.ErrInterrupted) {
		t.Errorf("error = %v, want ErrInterrupted", err)
	}
	close(goOn)
	all.Wait()
}

func TestMessagesAreBounded(t *testing.T) {
	d := serve(t, &cnitest.Handler{})
	huge := request(cni.CommandAdd, "c1")
	huge.Args = strings.Repeat("x", cni.MaxMessage)
	if _, err := d.client.Do(t.Context(), huge); !errors.Is(err, cni.ErrTooLarge) {
		t.Errorf("client sent %v, want ErrTooLarge", err)
	}
	// A client that sends too much is cut off.
	for name, data := range map[string]string{
		"too large": `{"args":"` + strings.Repeat("x", cni.MaxMessage),
		"not JSON":  "GET / HTTP/1.1\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("unix", d.client.Socket)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, data); err != nil {
				t.Fatal(err)
			}
			var response cni.Response
			if err := json.NewDecoder(conn).Decode(&response); err != nil {
				t.Fatal(err)
			}
			wantWire(t, response, types.ErrDecodingFailure, "read request")
		})
	}
}

func TestClientTellsWhetherTheDaemonGotTheRequest(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "cni.sock")
	client := cni.Client{Socket: socket}
	status := cni.Request{Command: cni.CommandStatus}
	if _, err := client.Do(t.Context(), status); !errors.Is(err, cni.ErrUnreachable) {
		t.Errorf("no socket: %v, want ErrUnreachable", err)
	}
	l, err := unixsocket.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() { // a daemon that dies while it holds the request
		conn, err := l.Accept()
		if err == nil {
			_, _ = conn.Read(make([]byte, 1))
			conn.Close()
		}
		l.Close()
	}()
	if _, err := client.Do(t.Context(), status); !errors.Is(err, cni.ErrInterrupted) {
		t.Errorf("daemon died: %v, want ErrInterrupted", err)
	}
	if _, err := os.Stat(socket); err != nil {
		t.Errorf("socket is gone: %v", err)
	}
	for range 2 { // the second time the listener is certainly closed
		_, err = client.Do(t.Context(), status)
	}
	if !errors.Is(err, cni.ErrUnreachable) {
		t.Errorf("nobody listens: %v, want ErrUnreachable", err)
	}
}

func TestServeEndsWhenItsListenerIsClosed(t *testing.T) {
	l, err := unixsocket.Listen(filepath.Join(t.TempDir(), "cni.sock"))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	err = cni.Serve(t.Context(), l, &cnitest.Handler{}, slog.New(slog.DiscardHandler))
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("serve = %v, want net.ErrClosed", err)
	}
}

// withField returns the minimal configuration with one more field.
func withField(key, value string) json.RawMessage {
	return json.RawMessage(strings.Replace(minimal, "{", `{"`+key+`":`+value+",", 1))
}

func wantResult(t *testing.T, response cni.Response, want *types100.Result) {
	t.Helper()
	if response.Error != nil {
		t.Fatal(response.Error)
	}
	expected, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(expected), string(response.Result)); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
}

func wantWire(t *testing.T, response cni.Response, code uint, says ...string) {
	t.Helper()
	if response.Error == nil {
		t.Fatalf("no error; want code %d", code)
	}
	if response.Error.Code != code {
		t.Errorf("code = %d, want %d: %v", response.Error.Code, code, response.Error)
	}
	for _, say := range says {
		if !strings.Contains(response.Error.Error(), say) {
			t.Errorf("error does not say %q: %v", say, response.Error)
		}
	}
}
