// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Command lab runs a real multi-node Kubernetes cluster on one machine, for tests and for trying things out.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/sealane/sealane/test/lab/internal/console"
	"github.com/sealane/sealane/test/lab/internal/machine"
	"github.com/sealane/sealane/test/lab/internal/paths"
)

func main() {
	os.Exit(exitCode(run(os.Args[1:])))
}

func run(args []string) error {
	if mine, err := machine.Main(args); mine {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if len(args) == 0 || args[0] == "help" || args[0] == "--help" || args[0] == "-h" {
		fmt.Print(usage())
		return nil
	}
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		p, err := paths.FromEnv(os.Getenv)
		if err != nil {
			return err
		}
		// What a command is asked for goes to standard output; what it does meanwhile does not.
		return c.run(ctx, env{paths: p, console: console.New(os.Stderr)}, args[1:])
	}
	return fmt.Errorf("%w %q; see \"lab help\"", errCommand, args[0])
}

// exitCode prints an error and returns the program's exit status: that of a command which it ran, or 1.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	var ended *exec.ExitError
	if errors.As(err, &ended) && errors.Is(err, errRan) {
		return ended.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "lab:", err)
	return 1
}
