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
	"path/filepath"
	"syscall"
	"time"
)

var errUsage = errors.New("usage: probe serve PORT... | probe first -out FILE TARGET... | probe dial -out FILE TARGET")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	flags := flag.NewFlagSet("probe", flag.ContinueOnError)
	control := flags.String("control", ":7999", "where orders are taken")
	out := flags.String("out", "", "file to write the result to")
	seconds := flags.Int("seconds", 3, "how long")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errUsage
	}
	switch args[0] {
	case "serve":
		return serve(ctx, *control, flags.Args())
	case "first":
		r, err := first(ctx, flags.Args(), time.Duration(*seconds)*time.Second)
		return errors.Join(err, write(*out, r))
	case "dial":
		return write(*out, dial(ctx, flags.Arg(0)))
	}
	return errUsage
}

// write makes a file that is complete as soon as it has its name.
func write(path string, what any) error {
	text, err := json.Marshal(what)
	if err != nil {
		return err
	}
	part := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := os.WriteFile(part, text, 0o644); err != nil {
		return err
	}
	return os.Rename(part, path)
}
