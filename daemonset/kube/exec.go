// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"context"
	"errors"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"
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

// Exec runs a command in a container, through the API server, until it ends or ctx does:
// over WebSocket, or over SPDY if something on the way does not support WebSocket. Its
// standard input stays open until then, and empty, so a command can notice the end of the
// connection by it. The error is an *ExitError if the command itself failed.
func (c *Client) Exec(ctx context.Context, cmd Command) error {
	doing := fmt.Sprintf("run %s in pod %s/%s", cmd.Args[0], cmd.Namespace, cmd.Pod)
	if c.conn.Rest == nil {
		return fmt.Errorf("%s: %w: this client runs no commands", doing, ErrBadConfig)
	}
	url := c.conn.Core.CoreV1().RESTClient().Get().Namespace(cmd.Namespace).Resource("pods").Name(cmd.Pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{
			Container: cmd.Container, Command: cmd.Args, Stdin: true, Stdout: true, Stderr: true,
		}, scheme.ParameterCodec).URL()
	modern, err := remotecommand.NewWebSocketExecutor(c.conn.Rest, "GET", url.String())
	if err != nil {
		return Wrap(doing, err)
	}
	old, err := remotecommand.NewSPDYExecutor(c.conn.Rest, "POST", url)
	if err != nil {
		return Wrap(doing, err)
	}
	either, err := remotecommand.NewFallbackExecutor(modern, old, func(err error) bool {
		said := apierrors.ReasonForError(refusal(err)) != metav1.StatusReasonUnknown
		return httpstream.IsHTTPSProxyError(err) || (httpstream.IsUpgradeFailure(err) && !said)
	})
	if err != nil {
		return Wrap(doing, err)
	}
	silence, end := io.Pipe()
	defer end.Close()
	streaming, cancel := context.WithCancelCause(c.conn.WithLog(ctx))
	defer cancel(nil)
	err = either.StreamWithContext(streaming, remotecommand.StreamOptions{
		Stdin: silence, Stdout: reader{cmd.Stdout, cancel}, Stderr: reader{cmd.Stderr, cancel},
	})
	if streaming.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w", doing, context.Cause(streaming))
	}
	if exit := exec.ExitError(nil); errors.As(err, &exit) {
		return fmt.Errorf("%s: %w", doing, &ExitError{Message: exit.String()})
	}
	if err != nil && ctx.Err() == nil {
		return Wrap(doing, refusal(err))
	}
	return ctx.Err()
}

// refusal returns what the API server said, if that is why there is no stream.
func refusal(err error) error {
	if failed := (*httpstream.UpgradeFailureError)(nil); errors.As(err, &failed) && failed.Cause != nil {
		return failed.Cause
	}
	return err
}

// reader passes on what a command writes. When that fails, because the reading end is gone,
// it ends the command; the library alone would only log the failure.
type reader struct {
	io.Writer
	gone context.CancelCauseFunc
}

// Write implements io.Writer.
func (r reader) Write(p []byte) (int, error) {
	n, err := r.Writer.Write(p)
	if err != nil {
		r.gone(err)
	}
	return n, err
}
