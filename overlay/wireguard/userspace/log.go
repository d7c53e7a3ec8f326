// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package userspace

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

// logInterval is the shortest time between two messages of a device. WireGuard reports each
// packet that it could not send.
const logInterval = time.Second

// logger passes a device's messages to log, with the device's name.
func logger(log *slog.Logger, name string) *device.Logger {
	log = log.With("device", name)
	errors := &limiter{log: log}
	verbose := device.DiscardLogf
	if log.Enabled(context.Background(), slog.LevelDebug) {
		verbose = func(format string, args ...any) { log.Debug("wireguard", "message", fmt.Sprintf(format, args...)) }
	}
	return &device.Logger{Verbosef: verbose, Errorf: errors.errorf}
}

// limiter lets one message through per logInterval and counts the rest.
type limiter struct {
	log *slog.Logger

	mu      sync.Mutex // guards the fields below
	last    time.Time
	skipped int
}

func (l *limiter) errorf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.last) < logInterval {
		l.skipped++
		return
	}
	l.log.Warn("wireguard", "message", fmt.Sprintf(format, args...), "skipped", l.skipped)
	l.last, l.skipped = time.Now(), 0
}
