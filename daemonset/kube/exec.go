// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/sealane/sealane/internal/websocket"
)

// Command is a program to run in a container.
type Command struct {
	Namespace, Pod, Container string
	Args                      []string // the program first
	Stdout, Stderr            io.Writer
}

// ExitError says that a command ran and failed.
type ExitError struct{ Message string }

// Error implements error.
func (e *ExitError) Error() string { return e.Message }

// execProtocol is the subprotocol of pods/exec: the first byte of a message is
// the number of its channel.
const execProtocol = "v4.channel.k8s.io"

// Its channels, beside that of the standard input (0).
const (
	channelStdout = 1
	channelStderr = 2
	channelStatus = 3 // a metav1.Status, when the command has ended
)

// Exec runs a command in a container, through the API server, until it ends or
// ctx does. Its standard input is open until then, and empty: a command that
// should not outlive the connection ends with it. The error is an *ExitError if
// the command itself failed.
func (c *Client) Exec(ctx context.Context, cmd Command) error {
	doing := fmt.Sprintf("run %s in pod %s/%s", cmd.Args[0], cmd.Namespace, cmd.Pod)
	conn, err := c.openExec(ctx, cmd)
	if err != nil {
		return wrap(doing, err)
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	if err := copyExec(conn, cmd); ctx.Err() == nil && err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return ctx.Err()
}

func (c *Client) openExec(ctx context.Context, cmd Command) (*websocket.Conn, error) {
	if c.upgrade == nil {
		return nil, fmt.Errorf("%w: this client runs no commands", ErrBadConfig)
	}
	url := c.core.CoreV1().RESTClient().Get().Namespace(cmd.Namespace).Resource("pods").Name(cmd.Pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{
			Container: cmd.Container, Command: cmd.Args, Stdin: true, Stdout: true, Stderr: true,
		}, scheme.ParameterCodec).URL()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url.String(), nil)
	if err != nil {
		return nil, err
	}
	key := websocket.Offer(r.Header, execProtocol)
	answer, err := c.upgrade.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		defer answer.Body.Close()
		return nil, refusal(answer)
	}
	return websocket.Accept(answer, key)
}

// refusal makes an error of an answer that is not the wanted one.
func refusal(answer *http.Response) error {
	const enough = 64 << 10
	raw, _ := io.ReadAll(io.LimitReader(answer.Body, enough)) // what there is says more than how it ended
	var s metav1.Status
	if json.Unmarshal(raw, &s) == nil && s.Kind == "Status" {
		return &apierrors.StatusError{ErrStatus: s}
	}
	return apierrors.NewGenericServerResponse(answer.StatusCode, "get", corev1.Resource("pods/exec"), "", string(raw), 0, true)
}

func copyExec(conn *websocket.Conn, cmd Command) error {
	for {
		message, err := conn.Read()
		switch {
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF // before the command's end was told
		case err != nil:
			return err
		case len(message) == 0:
			continue
		}
		switch data := message[1:]; message[0] {
		case channelStdout:
			_, err = cmd.Stdout.Write(data)
		case channelStderr:
			_, err = cmd.Stderr.Write(data)
		case channelStatus:
			return exitOf(data)
		}
		if err != nil {
			return err
		}
	}
}

func exitOf(raw []byte) error {
	var s metav1.Status
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("read how the command ended: %w", err)
	}
	if s.Status == metav1.StatusSuccess {
		return nil
	}
	return &ExitError{Message: s.Message}
}

// upgradable makes a transport for requests that become streams: HTTP/2 has no
// such requests. Credentials and proxies are those of the configuration.
func upgradable(base *rest.Config) (http.RoundTripper, error) {
	c := rest.CopyConfig(base)
	c.NextProtos = []string{"http/1.1"}
	return rest.TransportFor(c)
}
