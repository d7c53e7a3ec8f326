// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Command sealaned is Sealane's node daemon. "sealaned run" serves, "sealaned
// install" places the CNI plugins on the node, "sealaned clean" removes every
// trace of Sealane from the node. "sealaned monitor" and "sealaned explain" ask
// the one that serves what it decides.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/sealane/sealane/daemonset/agent"
	"github.com/sealane/sealane/internal/coredump"
)

// version is set by the build: -ldflags "-X main.version=v1.2.3".
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := coredump.Forbid()
	if err == nil {
		err = run(ctx, os.Args[1:])
	}
	if err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "sealaned:", err)
		os.Exit(1)
	}
}

const usage = "usage: sealaned run|install|clean|monitor|explain|version [flags]; `sealaned COMMAND -h` lists the flags"

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	fs := flag.NewFlagSet("sealaned "+args[0], flag.ContinueOnError)
	cfg := agent.Config{Version: version}
	switch args[0] {
	case "run":
		cfg.Register(fs)
		if err := fs.Parse(args[1:]); err != nil {
			return err
		}
		if err := cfg.Validate(); err != nil {
			return err
		}
		return agent.Run(ctx, cfg, logger(cfg.LogLevel))
	case "install":
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find plugins: %w", err)
		}
		from := fs.String("from", filepath.Dir(exe), "folder that holds the plugins")
		to := fs.String("bin-dir", "/opt/cni/bin", "folder in which the container runtime looks for CNI plugins")
		if err := fs.Parse(args[1:]); err != nil {
			return err
		}
		return agent.Install(*from, *to, logger(slog.LevelInfo))
	case "clean":
		cfg.Register(fs)
		binDir := fs.String("bin-dir", "/opt/cni/bin", "folder in which the container runtime looks for CNI plugins")
		wait := fs.Bool("wait", false, "keep running once the node is clean, until SIGTERM; for a DaemonSet, which reports readiness")
		if err := fs.Parse(args[1:]); err != nil {
			return err
		}
		if err := agent.Clean(ctx, cfg, *binDir, logger(cfg.LogLevel)); err != nil {
			return err
		}
		if *wait {
			<-ctx.Done()
		}
		return nil
	case "monitor":
		return monitor(ctx, args[1:], os.Stdin, os.Stdout)
	case "explain":
		return explain(ctx, args[1:], os.Stdout)
	case "version":
		fmt.Println(version)
		return nil
	}
	return fmt.Errorf("unknown command %q; %s", args[0], usage)
}

func logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}
