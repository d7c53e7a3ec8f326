// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const conflist = `{"cniVersion": "1.0.0", "name": "net", "plugins": [
  {"type": "first", "mtu": 1400},
  {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}
]}`

func TestFindNetwork(t *testing.T) {
	dir := t.TempDir()
	if _, err := findNetwork(dir); !errors.Is(err, ErrConflist) {
		t.Errorf("empty directory: got %v", err)
	}
	for name, text := range map[string]string{"10-b.conflist": `{"name": "other"}`, "05-a.conflist": conflist, "00-x.conf": `{}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n, err := findNetwork(dir)
	if err != nil || n.Name != "net" || len(n.Plugins) != 2 {
		t.Errorf("got %+v, %v", n, err)
	}
	for _, bad := range []string{`{"name": "net"}`, `[`} {
		if err := os.WriteFile(filepath.Join(dir, "00-bad.conflist"), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := findNetwork(dir); !errors.Is(err, ErrConflist) {
			t.Errorf("%s: got %v", bad, err)
		}
	}
}

// TestConfig compares with what the specification wants a runtime to pass (CNI
// 1.1, section 3).
func TestConfig(t *testing.T) {
	var n network
	if err := json.Unmarshal([]byte(conflist), &n); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		plugin int
		prev   string
		want   string
	}{
		{"first", 0, "", `{"cniVersion": "1.0.0", "name": "net", "type": "first", "mtu": 1400}`},
		{"chained", 1, `{"ips": []}`, `{"cniVersion": "1.0.0", "name": "net", "type": "portmap", "snat": true,
			"runtimeConfig": {"portMappings": []}, "prevResult": {"ips": []}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var prev json.RawMessage
			if tt.prev != "" {
				prev = json.RawMessage(tt.prev)
			}
			text, err := n.config(tt.plugin, prev)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(object(t, tt.want), object(t, string(text))); diff != "" {
				t.Error(diff)
			}
		})
	}
	if n.Plugins[1]["capabilities"] == nil {
		t.Error("the network was changed")
	}
}

func object(t *testing.T, text string) map[string]any {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestTimeEach(t *testing.T) {
	pods := make([]pod, 20)
	var calls, running, most atomic.Int32
	took, err := timeEach(t.Context(), pods, 3, func(_ context.Context, p *pod) error {
		most.Store(max(most.Load(), running.Add(1)))
		defer running.Add(-1)
		calls.Add(1)
		p.id = "seen"
		return nil
	})
	if err != nil || len(took) != 20 || calls.Load() != 20 || most.Load() > 3 {
		t.Errorf("%d times, %d calls, %d at a time, %v", len(took), calls.Load(), most.Load(), err)
	}
	for i := range pods {
		if pods[i].id != "seen" || took[i] <= 0 {
			t.Errorf("pod %d: %+v took %v", i, pods[i], took[i])
		}
	}
	broken := errors.New("broken")
	if _, err := timeEach(t.Context(), pods, 3, func(context.Context, *pod) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestReadIdentities(t *testing.T) {
	got, err := readIdentities(strings.NewReader("a 1\nb  2\n"))
	if want := []identity{{"a", "1"}, {"b", "2"}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for _, bad := range []string{"", "a\n", "a 1 x\n", "a 1\n\n"} {
		if got, err := readIdentities(strings.NewReader(bad)); !errors.Is(err, ErrUsage) {
			t.Errorf("%q: %v, %v; want ErrUsage", bad, got, err)
		}
	}
}
