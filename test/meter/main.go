// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

var errUsage = errors.New("usage: meter serve ADDRESS:PORT | meter run [-pps N] [-seconds N] [-direction both|out|in] ADDRESS:PORT")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "meter:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	flags := flag.NewFlagSet("meter", flag.ContinueOnError)
	pps := flags.Int("pps", 2000, "UDP packets per second in each direction")
	seconds := flags.Int("seconds", 10, "how long")
	direction := flags.String("direction", "both", "both, out (to the server only) or in")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errUsage
	}
	switch args[0] {
	case "serve":
		return serve(ctx, flags.Arg(0))
	case "run":
		o := order{PPS: *pps, Length: time.Duration(*seconds) * time.Second, Out: *direction != "in", In: *direction != "out"}
		r, err := measure(ctx, flags.Arg(0), o)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	return errUsage
}
