// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/cni"
)

// drained records the attachments that Drain passes to del.
type drained struct {
	attachments []cni.Attachment
	fail        string // the container for which it fails
}

func (d *drained) del(_ context.Context, a cni.Attachment) error {
	d.attachments = append(d.attachments, a)
	if a.ContainerID == d.fail {
		return errors.New("device is busy")
	}
	return nil
}

func TestQueueKeepsWhatIsNotDone(t *testing.T) {
	q := cni.Queue{Dir: filepath.Join(t.TempDir(), "cni-del")}
	var none drained
	if err := q.Drain(t.Context(), none.del); err != nil || none.attachments != nil {
		t.Errorf("drain before the first DEL: %v, %v", none.attachments, err)
	}
	for _, container := range []string{"c1", "c2", "c1", "c3"} { // a repeated DEL is kept once
		put(t, q, container)
	}
	if err := q.Remove(cni.AttachmentID{ContainerID: "c3", IfName: "eth0"}); err != nil {
		t.Fatal(err)
	}
	first := drained{fail: "c1"}
	err := q.Drain(t.Context(), first.del)
	if err == nil || !strings.Contains(err.Error(), "c1 eth0: device is busy") {
		t.Errorf("drain = %v", err)
	}
	of := func(container string) cni.Attachment {
		return cni.Attachment{
			ContainerID: container, IfName: "eth0", Netns: "/run/netns/" + container, Network: "sealane",
			Pod: cni.PodRef{Namespace: "default", Name: "web", UID: "u-1"},
		}
	}
	if diff := cmp.Diff([]cni.Attachment{of("c1"), of("c2")}, first.attachments); diff != "" {
		t.Errorf("drained (-want +got):\n%s", diff)
	}
	var second, third drained
	for _, d := range []*drained{&second, &third} {
		if err := q.Drain(t.Context(), d.del); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]cni.Attachment{of("c1")}, second.attachments); diff != "" || third.attachments != nil {
		t.Errorf("drained again %v (-want +got):\n%s", third.attachments, diff)
	}
}

func TestQueueLen(t *testing.T) {
	q := cni.Queue{Dir: filepath.Join(t.TempDir(), "queue")}
	for want, container := range []string{"a", "b", "b"} {
		if n, err := q.Len(); err != nil || n != want {
			t.Errorf("%d kept, %v, want %d", n, err, want)
		}
		put(t, q, container)
	}
	if err := os.WriteFile(filepath.Join(q.Dir, "other"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := q.Len(); err != nil || n != 2 {
		t.Errorf("%d kept, %v, want 2", n, err)
	}
}

func TestQueueStopsWithItsContext(t *testing.T) {
	q := cni.Queue{Dir: t.TempDir()}
	put(t, q, "c1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var d drained
	if err := q.Drain(ctx, d.del); !errors.Is(err, context.Canceled) || d.attachments != nil {
		t.Errorf("drained %v, %v", d.attachments, err)
	}
}

func TestQueueMakesTheBestOfDamage(t *testing.T) {
	var log bytes.Buffer
	q := cni.Queue{Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(&log, nil))}
	add, err := json.Marshal(request(cni.CommandAdd, "c2"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := json.Marshal(request(cni.CommandDel, "c9"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"c1@eth0.json":                 `{"command":"DE`,
		"c2@eth0.json":                 string(add),
		"c3@net@1.json":                string(other),
		"notes.txt":                    "x",
		"c4.json":                      "{}",
		"@eth0.json":                   "{}",
		".sealane-tmp-dead":            "x",
		".sealane-tmp-writing":         "x",
		"c5@name-is-far-too-long.json": "{}",
	} {
		if err := os.WriteFile(filepath.Join(q.Dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(q.Dir, ".sealane-tmp-dead"), long, long); err != nil {
		t.Fatal(err)
	}
	var d drained
	if err := q.Drain(t.Context(), d.del); err != nil {
		t.Fatal(err)
	}
	want := []cni.Attachment{
		{ContainerID: "c1", IfName: "eth0"}, {ContainerID: "c2", IfName: "eth0"}, {ContainerID: "c3", IfName: "net@1"},
	}
	if diff := cmp.Diff(want, d.attachments); diff != "" {
		t.Errorf("drained (-want +got):\n%s", diff)
	}
	entries, err := os.ReadDir(q.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if diff := cmp.Diff([]string{".sealane-tmp-writing", "@eth0.json", "c4.json", "c5@name-is-far-too-long.json", "notes.txt"}, left); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	for _, say := range []string{"c1@eth0.json", "unexpected end of JSON", "it is a ADD of", "notes.txt"} {
		if !strings.Contains(log.String(), say) {
			t.Errorf("log lacks %q:\n%s", say, log.String())
		}
	}
}

func TestQueueRefusesNamesThatLeadElsewhere(t *testing.T) {
	q := cni.Queue{Dir: t.TempDir()}
	for _, id := range []cni.AttachmentID{{ContainerID: "../x", IfName: "eth0"}, {ContainerID: "x", IfName: "../y"}, {}} {
		err := q.Put(cni.Request{Command: cni.CommandDel, ContainerID: id.ContainerID, IfName: id.IfName})
		if err == nil {
			t.Errorf("queued %+v", id)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	q.Dir = file
	if err := q.Put(request(cni.CommandDel, "c1")); err == nil {
		t.Error("queued in a file")
	}
	var d drained
	if err := q.Drain(t.Context(), d.del); err == nil {
		t.Error("drained a file")
	}
}

func put(t *testing.T, q cni.Queue, container string) {
	t.Helper()
	if err := q.Put(request(cni.CommandDel, container)); err != nil {
		t.Fatal(err)
	}
}
