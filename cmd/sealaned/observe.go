// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"

	"github.com/sealane/sealane/daemonset/observe"
	"github.com/sealane/sealane/internal/ipproto"
	"github.com/sealane/sealane/policy"
)

const defaultSocket = "/run/sealane/" + observe.SocketName

// monitor prints what the daemon of this node decides, as lines of JSON, until
// ctx ends or, if asked for, until in does: over a connection that breaks nobody
// sends a signal.
func monitor(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	fs := flag.NewFlagSet("sealaned monitor", flag.ContinueOnError)
	var f observe.Filter
	f.Register(fs)
	socket := fs.String("socket", defaultSocket, "socket of the daemon")
	untilEOF := fs.Bool("until-eof", false, "stop at the end of standard input")
	if err := parseAlone(fs, args); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if *untilEOF {
		go func() {
			_, _ = io.Copy(io.Discard, in) // however it ends, nobody listens any more
			stop()
		}()
	}
	return observe.Client{Socket: *socket}.Monitor(ctx, f, out)
}

// explain prints what the tables of this node say of one connection, as JSON.
func explain(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("sealaned explain", flag.ContinueOnError)
	socket := fs.String("socket", defaultSocket, "socket of the daemon")
	var x policy.Traffic
	x.Protocol = ipproto.TCP
	fs.TextVar(&x.From, "from", netip.Addr{}, "source address of the connection")
	fs.TextVar(&x.To, "to", netip.Addr{}, "destination address of the connection")
	port := fs.Uint("port", 0, "destination port of the connection")
	fs.Func("protocol", "tcp, udp, sctp or a number (default tcp)", func(s string) (err error) {
		var known bool
		if x.Protocol, known = observe.ParseProtocol(s); !known {
			err = errors.New("unknown protocol")
		}
		return err
	})
	if err := parseAlone(fs, args); err != nil {
		return err
	}
	if !x.From.IsValid() || !x.To.IsValid() || *port > 1<<16-1 {
		return errors.New("explain needs --from, --to and, for protocols with ports, --port up to 65535")
	}
	x.Port = uint16(*port)
	answer, err := observe.Client{Socket: *socket}.Explain(ctx, x)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(answer)
}

// parseAlone parses flags where nothing else may stand.
func parseAlone(fs *flag.FlagSet, args []string) error {
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("%s: unexpected %q", fs.Name(), fs.Arg(0))
	}
	return nil
}
