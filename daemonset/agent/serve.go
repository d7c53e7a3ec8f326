// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/cni/conflist"
	"github.com/sealane/sealane/internal/unixsocket"
)

// serveCNI answers the plugin. The network configuration is there only once
// pods can be connected.
func (d *daemon) serveCNI(ctx context.Context) error {
	l, err := unixsocket.Listen(filepath.Join(d.cfg.RunDir, "cni.sock"))
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return cni.Serve(ctx, l, d.pods, d.log) })
	group.Go(func() error { return d.announce(ctx) })
	group.Go(func() error { return d.drain(ctx) })
	return group.Wait()
}

// drainEvery is how long a DEL that failed waits until it is tried again.
const drainEvery = time.Minute

// delQueue is where the plugin leaves DELs while no daemon answers.
func delQueue(cfg Config, log *slog.Logger) cni.Queue {
	return cni.Queue{Dir: filepath.Join(cfg.StateDir, "cni-del"), Logger: log}
}

// drain carries out the DELs that were queued while no daemon ran, or failed.
func (d *daemon) drain(ctx context.Context) error {
	queue := delQueue(d.cfg, d.log)
	tick := time.NewTicker(drainEvery)
	defer tick.Stop()
	for {
		if err := queue.Drain(ctx, d.pods.Del); err != nil && ctx.Err() == nil {
			d.log.Error("some queued DELs failed and stay queued", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// conflistPath is where this daemon's network configuration lies.
func conflistPath(cfg Config) string {
	return filepath.Join(cfg.CNIConfDir, filepath.Base(conflist.DefaultPath))
}

// announce writes the network configuration, by which the runtime learns of this
// network, as soon as pods can be connected, and keeps it there.
func (d *daemon) announce(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.state.Connectable():
	}
	// The plugin runs on the host, where socket and queue have their default names.
	path, options := conflistPath(d.cfg), conflist.Options{Reserved: d.cfg.reserved()}
	if err := conflist.Write(path, options); err != nil {
		return err
	}
	d.log.Info("ready: pods can be connected")
	conflist.Keep(ctx, path, options, d.log)
	return nil
}
