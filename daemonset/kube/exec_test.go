// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// execServer answers pods/exec with messages, and then waits for the client to
// go. It returns what it was asked.
func execServer(t *testing.T, messages ...string) (*Client, <-chan *url.URL, <-chan struct{}) {
	t.Helper()
	const protocol = "v5.channel.k8s.io"
	asked, gone := make(chan *url.URL, 1), make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL
		if r.Header.Get("Sec-WebSocket-Protocol") != protocol || r.Header.Get("Authorization") != "Bearer token" {
			http.Error(w, "not as it should be", http.StatusBadRequest)
			return
		}
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(buffered, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n",
			base64.StdEncoding.EncodeToString(sum[:]), protocol)
		for _, m := range messages {
			fmt.Fprintf(buffered, "\x82%c%s", len(m), m)
		}
		if strings.HasPrefix(messages[len(messages)-1], "\x03") {
			fmt.Fprint(buffered, "\x88\x02\x03\xe8") // closed, and all is well (RFC 6455, 7.4.1)
		}
		_ = buffered.Flush()
		_, _ = io.Copy(io.Discard, conn)
		close(gone)
	}))
	s.EnableHTTP2 = true // as API servers have it, where nothing can be upgraded
	s.StartTLS()
	t.Cleanup(s.Close)
	c, err := NewUserClient(Config{Kubeconfig: kubeconfigFor(t, s.URL)}, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, asked, gone
}

func kubeconfigFor(t *testing.T, server string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": {"token": "token"}}],
		"clusters": [{"name": "k", "cluster": {"server": %q, "insecure-skip-tls-verify": true}}], "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}]}`, server)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func command(stdout, stderr io.Writer) Command {
	return Command{Namespace: "ns", Pod: "p", Container: "c", Args: []string{"/bin/x", "--a=b c"}, Stdout: stdout, Stderr: stderr}
}

func TestExec(t *testing.T) {
	c, asked, gone := execServer(t, "\x01one ", "\x02oops", "\x01two", "\x03"+`{"kind":"Status","status":"Success"}`)
	var stdout, stderr bytes.Buffer
	if err := c.Exec(testContext(t), command(&stdout, &stderr)); err != nil {
		t.Fatal(err)
	}
	if stdout.String() != "one two" || stderr.String() != "oops" {
		t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
	}
	u := <-asked
	want := url.Values{"command": {"/bin/x", "--a=b c"}, "container": {"c"}, "stdin": {"true"}, "stdout": {"true"}, "stderr": {"true"}}
	if diff := cmp.Diff(want, u.Query()); diff != "" || u.Path != "/api/v1/namespaces/ns/pods/p/exec" {
		t.Errorf("asked %s\n%s", u, diff)
	}
	<-gone
}

func TestExecFails(t *testing.T) {
	var exit *ExitError
	c, _, _ := execServer(t, "\x03"+`{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}`)
	if err := c.Exec(testContext(t), command(io.Discard, io.Discard)); !errors.As(err, &exit) || !strings.Contains(exit.Message, "code 3") {
		t.Errorf("error %v", err)
	}
	c, _, _ = execServer(t, "\x01half")
	ctx, cancel := context.WithCancel(testContext(t))
	first := writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	if err := c.Exec(ctx, command(first, io.Discard)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error %v", err)
	}
	full := errors.New("full")
	c, _, _ = execServer(t, "\x01half")
	if err := c.Exec(testContext(t), command(writerFunc(func([]byte) (int, error) { return 0, full }), io.Discard)); !errors.Is(err, full) {
		t.Errorf("full: error %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestExecRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		status int
		body   string
		want   error
	}{
		"forbidden": {http.StatusForbidden, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`, ErrForbidden},
		"no pod":    {http.StatusNotFound, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`, ErrNotFound},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tc.status)
			fmt.Fprint(w, tc.body)
		}))
		defer s.Close()
		c, err := NewUserClient(Config{Kubeconfig: kubeconfigFor(t, s.URL)}, "")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Exec(testContext(t), command(io.Discard, io.Discard)); !errors.Is(err, tc.want) || !strings.Contains(err.Error(), "ns/p") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestExecWithoutAServer(t *testing.T) {
	if err := newFake(t).Exec(testContext(t), Command{Args: []string{"x"}}); !errors.Is(err, ErrBadConfig) {
		t.Errorf("exec without a server: error %v", err)
	}
}
