// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package conflist_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/cni/conflist"
)

const defaultConflist = `{
  "cniVersion": "1.1.0",
  "name": "sealane",
  "plugins": [
    {
      "type": "sealane-cni",
      "capabilities": {
        "portMappings": true
      },
      "portmap": {
        "snat": true
      }
    }
  ]
}
`

func TestEncode(t *testing.T) {
	if diff := cmp.Diff(defaultConflist, string(conflist.Encode(conflist.Options{}))); diff != "" {
		t.Errorf("conflist (-want +got):\n%s", diff)
	}
	same := conflist.Options{Socket: cni.DefaultSocket, QueueDir: cni.DefaultQueueDir}
	if diff := cmp.Diff(defaultConflist, string(conflist.Encode(same))); diff != "" {
		t.Errorf("conflist with the defaults (-want +got):\n%s", diff)
	}
	other := conflist.Encode(conflist.Options{Socket: "/run/x.sock", QueueDir: "/var/x"})
	var list struct{ Plugins []map[string]any }
	if err := json.Unmarshal(other, &list); err != nil {
		t.Fatal(err)
	}
	want := []map[string]any{
		{
			"type": "sealane-cni", "socket": "/run/x.sock", "delQueueDir": "/var/x",
			"capabilities": map[string]any{"portMappings": true}, "portmap": map[string]any{"snat": true},
		},
	}
	if diff := cmp.Diff(want, list.Plugins); diff != "" {
		t.Errorf("plugins (-want +got):\n%s", diff)
	}
}

func TestWriteTouchesTheFileOnlyToChangeIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "net.d", "05-sealane.conflist")
	inode := func() os.FileInfo {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	write := func(o conflist.Options) {
		t.Helper()
		if err := conflist.Write(path, o); err != nil {
			t.Fatal(err)
		}
	}
	write(conflist.Options{})
	first := inode()
	if first.Mode().Perm() != 0o644 {
		t.Errorf("mode = %v, want 0644", first.Mode())
	}
	write(conflist.Options{})
	if !os.SameFile(first, inode()) {
		t.Error("the same content was written again")
	}
	write(conflist.Options{Socket: "/run/y.sock"})
	if os.SameFile(first, inode()) {
		t.Error("a change was not written")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := conflist.Write(filepath.Join(file, "x"), conflist.Options{}); err == nil {
		t.Error("written below a file")
	}
}

// said is a log of which each line is read once.
type said chan string

func (s said) Write(line []byte) (int, error) {
	s <- string(line)
	return len(line), nil
}

func TestKeepWritesWhatOthersChange(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net.d")
	path := filepath.Join(dir, "05-sealane.conflist")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		log := make(said, 2)
		ctx, cancel := context.WithCancel(t.Context())
		must(conflist.Write(path, conflist.Options{}))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			conflist.Keep(ctx, path, conflist.Options{}, slog.New(slog.NewTextHandler(log, nil)))
		}()
		// wantSaid lets Keep check once more.
		wantSaid := func(want string) {
			t.Helper()
			time.Sleep(10 * time.Second) // in the time of the bubble
			synctest.Wait()
			got := ""
			for len(log) > 0 {
				got += <-log
			}
			if strings.Count(got, "\n") > 1 || (got == "") != (want == "") || !strings.Contains(got, want) {
				t.Errorf("log = %q, want %q", got, want)
			}
		}
		wantList := func() {
			t.Helper()
			got, err := os.ReadFile(path)
			must(err)
			if diff := cmp.Diff(defaultConflist, string(got)); diff != "" {
				t.Errorf("conflist (-want +got):\n%s", diff)
			}
		}
		wantSaid("")
		must(os.RemoveAll(dir))
		wantSaid("level=WARN")
		wantList()
		wantSaid("")
		must(os.WriteFile(path, []byte("{}"), 0o600))
		wantSaid("level=WARN")
		wantList()
		// Keep logs a failed write, and tries again.
		must(os.RemoveAll(dir))
		must(os.WriteFile(dir, nil, 0o600))
		wantSaid("level=ERROR")
		must(os.Remove(dir))
		wantSaid("level=WARN")
		wantList()
		cancel()
		<-ended
	})
}
