// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package limit

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
	"github.com/sealane/sealane/perf/netnsexec"
)

// programs builds this program and upstream's.
func programs(t *testing.T) (self, wireguardGo string) {
	t.Helper()
	dir := t.TempDir()
	self, wireguardGo = filepath.Join(dir, "perf"), filepath.Join(dir, "wireguard-go")
	for out, pkg := range map[string]string{self: "github.com/sealane/sealane/perf", wireguardGo: "golang.zx2c4.com/wireguard"} {
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
	b := New()
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob(filepath.Join(netnsexec.Dir, b.prefix+"*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		if left, _ := filepath.Glob(filepath.Join(uapiDir, fmt.Sprintf("slp%d-*", os.Getpid()))); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	same, err := b.Redirect(t.Context(), 1440)
	if err != nil {
		t.Fatal(err)
	}
	cross, err := b.WireGuard(t.Context(), wireguardGo, 1440)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]netnsexec.Path{"redirect_peer": same, "wireguard-go": cross} {
		for _, connect := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, connect %t", name, connect), func(t *testing.T) { talk(t, self, p, connect) })
		}
	}
}

func talk(t *testing.T, self string, p netnsexec.Path, connect bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stop, err := netnsexec.Serve(ctx, p.Server, self, "serve")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	out, err := p.Client.Run(ctx, self, "roundtrips", fmt.Sprintf("-to=%s:%d", p.To, 5202), "-for=50ms", fmt.Sprintf("-connect=%t", connect))
	if err != nil {
		t.Fatal(err)
	}
	var q struct {
		Count    int
		P50, P99 time.Duration
	}
	if err := json.Unmarshal(out, &q); err != nil || q.Count == 0 || q.P50 <= 0 || q.P99 < q.P50 {
		t.Errorf("got %+v, %v", q, err)
	}
}
