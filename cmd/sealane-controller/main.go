// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Command sealane-controller approves and signs the certificates of nodes. Run
// several for availability: they elect a leader, which does the work.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/sealane/sealane/controller"
	"github.com/sealane/sealane/internal/coredump"
)

// version is set by the build: -ldflags "-X main.version=v1.2.3".
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := coredump.Forbid()
	if err == nil {
		err = run(ctx, os.Args[1:], os.Stdout)
	}
	if err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "sealane-controller:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("sealane-controller", flag.ContinueOnError)
	var cfg controller.Config
	cfg.Register(fs)
	showVersion := fs.Bool("version", false, "print the version and exit")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *showVersion {
		_, err := fmt.Fprintln(out, version)
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("%w: argument %q: there are only flags", controller.ErrConfig, fs.Arg(0))
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: cfg.LogLevel}))
	return controller.Run(ctx, cfg, log)
}
