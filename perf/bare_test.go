// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/sealane/sealane/internal/nettest"
)

// programs builds this program and upstream's.
func programs(t *testing.T) (self, wireguardGo string) {
	t.Helper()
	dir := t.TempDir()
	self, wireguardGo = filepath.Join(dir, "perf"), filepath.Join(dir, "wireguard-go")
	for out, pkg := range map[string]string{self: ".", wireguardGo: "golang.zx2c4.com/wireguard"} {
		cmd := exec.Command("go", "build", "-o", out, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", pkg, err, text)
		}
	}
	return self, wireguardGo
}

// TestPrivilegedLimits talks over both bare limits.
func TestPrivilegedLimits(t *testing.T) {
	nettest.Privileged(t)
	self, wireguardGo := programs(t)
	b := newBench()
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob(filepath.Join(netnsDir, b.prefix+"*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		if left, _ := filepath.Glob(filepath.Join(uapiDir, fmt.Sprintf("slp%d-*", os.Getpid()))); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	same, err := b.redirectPath(t.Context(), 1440)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := mtu(same.client); err != nil || got != 1440 {
		t.Errorf("MTU %d, %v", got, err)
	}
	cross, err := b.wireguardPath(t.Context(), wireguardGo, 1440)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]path{"redirect_peer": same, "wireguard-go": cross} {
		for _, connect := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, connect %t", name, connect), func(t *testing.T) { talk(t, self, p, connect) })
		}
	}
}

func talk(t *testing.T, self string, p path, connect bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stop, err := serve(ctx, p.server, self, "serve")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	out, err := p.client.run(ctx, self, "turns", fmt.Sprintf("-to=%s:%d", p.to, turnPort), "-for=50ms", fmt.Sprintf("-connect=%t", connect))
	if err != nil {
		t.Fatal(err)
	}
	var q quantiles
	if err := json.Unmarshal(out, &q); err != nil || q.Count == 0 || q.P50 <= 0 || q.P99 < q.P50 {
		t.Errorf("got %+v, %v", q, err)
	}
}

// TestPrivilegedServeFails tells why a server did not start.
func TestPrivilegedServeFails(t *testing.T) {
	nettest.Privileged(t)
	ns := nettest.NewNS(t)
	if _, err := serve(t.Context(), netns(ns.Path), "sh", "-c", "echo no port >&2"); err == nil {
		t.Error("no error")
	} else if got := err.Error(); got != "start sh -c echo no port >&2: unexpected EOF: no port" {
		t.Errorf("got %q", got)
	}
}
