// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

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

// listening is the word by which a server says that it can be called.
const listening = "listening"

// netns is the path of a network namespace.
type netns string

// command returns a command that will run in the namespace.
func (n netns) command(ctx context.Context, argv ...string) *exec.Cmd {
	return command(ctx, append([]string{"nsenter", "--net=" + string(n)}, argv...)...)
}

// run runs a command in the namespace and returns what it printed.
func (n netns) run(ctx context.Context, argv ...string) ([]byte, error) {
	return output(n.command(ctx, argv...))
}

// command returns a command that is asked to end, not killed, with ctx.
func command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// output runs a command; where it fails, the error holds the end of what it said.
func output(cmd *exec.Cmd) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("%s: %w: %s%s", strings.Join(cmd.Args, " "), err, tail(errs.String()), tail(out.String()))
	}
	return out.Bytes(), nil
}

func tail(s string) string {
	const most = 1000
	return strings.TrimSpace(s[max(0, len(s)-most):])
}

// serve starts a server and waits until it says that it listens. stop ends it.
func serve(ctx context.Context, n netns, argv ...string) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := n.command(ctx, argv...)
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
		if strings.Contains(line, listening) {
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

// path is the way from a client to a server.
type path struct {
	client, server netns
	to             netip.Addr
}
