// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Command sealane-wireguard runs WireGuard in user space on nodes whose kernel has none. It
// is separate from the node daemon, so that no restart or upgrade of the daemon affects a
// lane. If the kernel has WireGuard, it stays idle and says so.
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
	"time"

	"github.com/sealane/sealane/internal/coredump"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/overlay/backend"
	"github.com/sealane/sealane/overlay/wireguard/process"
	"github.com/sealane/sealane/overlay/wireguard/userspace"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := coredump.Forbid()
	if err == nil {
		err = run(ctx, os.Args[1:], os.Stdout)
	}
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sealane-wireguard:", err)
		os.Exit(1)
	}
}

type options struct {
	socket       string
	check        bool
	removeOnExit bool
	level        slog.Level
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("sealane-wireguard", flag.ContinueOnError)
	f.StringVar(&o.socket, "socket", process.DefaultSocket, "unix socket on which the node daemon asks for devices")
	f.BoolVar(&o.check, "check", false, "ask the running process for its state, print the answer and exit")
	f.BoolVar(&o.removeOnExit, "remove-on-exit", false,
		"remove the devices at the end; without it they stay, and drop packets until the next start")
	f.TextVar(&o.level, "log-level", slog.LevelInfo, "lowest level that is logged: debug, info, warn or error")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: only flags are accepted, see --help", f.Arg(0))
	}
	return o, nil
}

// run is the program; it returns when ctx ends.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.check {
		return check(ctx, o, stdout)
	}
	return serve(ctx, o, slog.New(slog.NewJSONHandler(stdout, &slog.HandlerOptions{Level: o.level})))
}

// check succeeds if the process answers.
func check(ctx context.Context, o options, stdout io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	mode, devices, err := process.Client{Socket: o.socket}.List(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "mode %s\n", mode)
	for _, d := range devices {
		fmt.Fprintf(stdout, "device %s port %d mtu %d\n", d.Name, d.Port, d.MTU)
	}
	return nil
}

func serve(ctx context.Context, o options, log *slog.Logger) error {
	h, err := nl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = h.Close() }()
	kernel, err := h.HasWireGuard()
	if err != nil {
		return fmt.Errorf("probe the kernel for WireGuard: %w", err)
	}
	ln, err := process.Listen(o.socket)
	if err != nil {
		return err
	}
	server := &process.Server{Mode: backend.Kernel, Logger: log}
	engine := userspace.New(h, log)
	if !kernel {
		server.Mode, server.Devices = backend.UserSpace, engine
	}
	log.Info("started", "mode", server.Mode, "socket", o.socket)
	err = server.Serve(ctx, ln)
	if o.removeOnExit {
		err = errors.Join(err, engine.Remove())
	}
	engine.Close()
	log.Info("stopped", "removed", o.removeOnExit)
	return err
}
