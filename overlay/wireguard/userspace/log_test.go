// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package userspace

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestLoggerIsLimited: a device that cannot send reports each packet.
func TestLoggerIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := logger(slog.New(slog.NewTextHandler(&out, nil)), "sealane-wg00")
		for range 100 {
			l.Errorf("no route to %s", "host")
		}
		time.Sleep(2 * logInterval)
		l.Errorf("again")
		l.Verbosef("not at this level")
		got := out.String()
		if strings.Count(got, "\n") != 2 || !strings.Contains(got, "skipped=99") || !strings.Contains(got, "device=sealane-wg00") {
			t.Errorf("log:\n%s", got)
		}
	})
}

func TestLoggerAtDebug(t *testing.T) {
	var out bytes.Buffer
	l := logger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})), "sealane-wg00")
	l.Verbosef("handshake with %s", "peer")
	if got := out.String(); !strings.Contains(got, "handshake with peer") {
		t.Errorf("log: %s", got)
	}
}
