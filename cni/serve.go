// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/sealane/sealane/internal/keylock"
)

const (
	// drainTime is how long requests may run on after Serve is told to end. It is well
	// below the grace that the chart gives the agent's pod (10 s).
	drainTime = 4 * time.Second
	// acceptPause is how long Serve waits when it cannot accept a connection, for example
	// because file descriptors have run out.
	acceptPause = 100 * time.Millisecond

	logCommand   = "command"
	logContainer = "container"
	logInterface = "interface"
	logDuration  = "duration"
	logPath      = "path"
	logError     = "error"
)

// Serve answers the requests that arrive on l by calling h, until ctx ends or l is closed.
// It then gives running requests some seconds to end, and closes l.
//
// A call of Add, Check or Status is cancelled when the plugin goes away; Del and GC
// continue, because finishing what they have begun is better. If the answer to an Add
// cannot be delivered, Serve undoes the Add.
func Serve(ctx context.Context, l net.Listener, h Handler, log *slog.Logger) error {
	s := &server{handler: h, log: log}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	// Requests do not end with ctx, but some time later.
	calls, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var running sync.WaitGroup
	err := s.accept(ctx, l, func(conn net.Conn) { running.Go(func() { s.serve(calls, conn) }) })
	defer time.AfterFunc(drainTime, cancel).Stop()
	running.Wait()
	return err
}

// server is the state of one Serve.
type server struct {
	handler Handler
	log     *slog.Logger
	busy    keylock.Locks[AttachmentID] // one call at a time works on an attachment
}

// accept calls serve for each connection, until ctx ends or l is closed.
func (s *server) accept(ctx context.Context, l net.Listener, serve func(net.Conn)) error {
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			serve(conn)
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept request: %w", err)
		default:
			s.log.Warn("cannot accept a request", logError, err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
		}
	}
}

// serve reads one request, and answers it.
func (s *server) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	var r Request
	err := conn.SetReadDeadline(time.Now().Add(ioTimeout))
	if err == nil {
		err = readMessage(conn, &r)
	}
	if err != nil {
		s.log.Warn("cannot read a request", logError, err)
		response := Response{Error: types.NewError(types.ErrDecodingFailure, "read request: "+err.Error(), "")}
		if err := writeMessage(conn, response); err != nil {
			s.log.Debug("cannot report an unreadable request to its sender", logError, err)
		}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, r.Command.timeout())
	defer cancel()
	if r.Command != CommandDel && r.Command != CommandGC {
		go cancelOnClose(conn, cancel)
	}
	s.answer(ctx, conn, r)
}

// cancelOnClose waits until the plugin, which sends nothing more, goes away, or until this
// side closes the connection.
func cancelOnClose(conn net.Conn, cancel context.CancelFunc) {
	if err := conn.SetReadDeadline(time.Time{}); err == nil {
		_, _ = conn.Read(make([]byte, 1))
	}
	cancel()
}

// answer does what r asks for and writes the response. It has the attachment to itself
// until the response is delivered or the Add undone.
func (s *server) answer(ctx context.Context, conn net.Conn, r Request) {
	begin := time.Now()
	log := s.log.With(logCommand, r.Command, logContainer, r.ContainerID, logInterface, r.IfName)
	var result any
	end, err := s.begin(ctx, r)
	if err == nil {
		defer end()
		result, err = s.call(ctx, r)
	}
	response := Response{}
	if err == nil && result != nil {
		response.Result, err = json.Marshal(result)
	}
	if err != nil {
		response.Error = toWire(err)
		log.Warn("request failed", logError, err, logDuration, time.Since(begin))
	} else {
		log.Debug("request done", logDuration, time.Since(begin))
	}
	if err := writeMessage(conn, response); err != nil {
		log.Warn("cannot deliver the response", logError, err)
		if r.Command == CommandAdd && response.Error == nil {
			s.undo(ctx, r, log)
		}
	}
}

// undo reverses an Add whose answer did not reach the runtime, which considers it failed.
func (s *server) undo(ctx context.Context, r Request, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), CommandDel.timeout())
	defer cancel()
	a, err := r.attachment()
	if err == nil {
		err = s.handler.Del(ctx, a)
	}
	if err != nil {
		log.Error("cannot disconnect a pod whose ADD got no answer", logError, err)
	}
}

// begin waits until no other call works on the attachment of r, and claims it until end is
// called. Commands without an attachment do not wait.
func (s *server) begin(ctx context.Context, r Request) (end func(), err error) {
	if r.Command == CommandStatus || r.Command == CommandGC {
		return func() {}, nil
	}
	end, err = s.busy.Lock(ctx, r.id())
	if err != nil {
		return nil, invalid(types.ErrTryAgainLater, fmt.Errorf("wait for another request of the same container: %w", err), "")
	}
	return end, nil
}

// call calls the handler. The result is nil except for ADD.
func (s *server) call(ctx context.Context, r Request) (result any, err error) {
	switch r.Command {
	case CommandStatus:
		return nil, statusError(s.handler.Status(ctx))
	case CommandGC:
		network, valid, err := r.validAttachments()
		if err != nil {
			return nil, err
		}
		return nil, s.handler.GC(ctx, network, valid)
	case CommandAdd, CommandDel, CommandCheck:
	default:
		return nil, invalid(types.ErrInvalidEnvironmentVariables,
			fmt.Errorf("CNI_COMMAND is %q: the daemon does not know it", r.Command), remedyEnv)
	}
	a, err := r.attachment()
	if err != nil {
		return nil, err
	}
	switch r.Command {
	case CommandDel:
		return nil, s.handler.Del(ctx, a)
	case CommandCheck:
		return nil, s.handler.Check(ctx, a)
	}
	added, err := s.handler.Add(ctx, a)
	if err != nil {
		return nil, fmt.Errorf("connect pod %s: %w", a.Pod, err)
	}
	return added, nil
}

// statusError returns the codes that STATUS has for itself: any other fault without a code
// of its own means that no pod can be connected.
func statusError(err error) error {
	if err == nil || CodeOf(err) == types.ErrLimitedConnectivity {
		return err
	}
	return invalid(types.ErrPluginNotAvailable, err, "")
}
