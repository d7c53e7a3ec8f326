// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotate

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/overlay/backend"
	"github.com/sealane/sealane/overlay/wireguard/process"
	"github.com/sealane/sealane/overlay/wireguard/userspace"
)

// Programs that the test binary is when it starts itself, and their settings.
const (
	asProgram     = "SEALANE_TEST_PROGRAM"
	asSettings    = "SEALANE_TEST_SETTINGS"
	daemonProgram = "daemon"
	laneProgram   = "lanes"
)

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	var err error
	switch os.Getenv(asProgram) {
	case daemonProgram:
		err = runDaemon(ctx, os.Getenv(asSettings), log)
	case laneProgram:
		err = runLanes(ctx, os.Getenv(asSettings), log)
	default:
		os.Exit(m.Run())
	}
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// runLanes carries WireGuard where the kernel does not, as sealane-wireguard does.
func runLanes(ctx context.Context, socket string, log *slog.Logger) error {
	h, err := nl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = h.Close() }()
	l, err := process.Listen(socket)
	if err != nil {
		return err
	}
	engine := userspace.New(h, log)
	defer engine.Close()
	return (&process.Server{Mode: backend.UserSpace, Devices: engine, Logger: log}).Serve(ctx, l)
}
