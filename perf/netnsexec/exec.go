// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package netnsexec runs programs in network namespaces: its own, or those of a
// cluster's pods.
package netnsexec

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Listening is the word that a server prints when it can be called; iperf3's greeting
// contains it.
const Listening = "listening"

// Netns is the path of a network namespace.
type Netns string

// Command returns a command that will run in the namespace.
func (n Netns) Command(ctx context.Context, argv ...string) *exec.Cmd {
	return Command(ctx, append([]string{"nsenter", "--net=" + string(n)}, argv...)...)
}

// Run runs a command in the namespace and returns what it printed.
func (n Netns) Run(ctx context.Context, argv ...string) ([]byte, error) {
	return Output(n.Command(ctx, argv...))
}

// Command returns a command that is asked to end, not killed, with ctx.
func Command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Output runs a command; where it fails, the error holds the end of what it said.
func Output(cmd *exec.Cmd) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, tail(errs.String()+out.String()))
	}
	return out.Bytes(), nil
}

func tail(s string) string {
	const most = 1000
	return strings.TrimSpace(s[max(0, len(s)-most):])
}

// Serve starts a server and waits until it says that it listens. stop ends it.
func Serve(ctx context.Context, n Netns, argv ...string) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := n.Command(ctx, argv...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	err = awaitWord(out)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, out) // a full pipe would stop the server
		_ = cmd.Wait()                  // it was told to end
	}()
	stop = func() {
		cancel()
		<-done
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("start %s: %w: %s", strings.Join(argv, " "), err, tail(errs.String()))
	}
	return stop, nil
}

func awaitWord(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if strings.Contains(line, Listening) {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
}

// Path is the way from a client to a server.
type Path struct {
	Client, Server Netns
	To             netip.Addr // of the server
}
