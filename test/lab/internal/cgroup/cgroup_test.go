// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cgroup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const hybrid = `22 21 0:20 / /proc rw - proc proc rw
30 25 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
34 30 0:30 / /sys/fs/cgroups-of-others rw - cgroup cgroup rw,pids
`

const unified = `25 21 0:22 / /sys rw - sysfs sysfs rw
30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
`

func TestParse(t *testing.T) {
	tests := map[string]struct {
		text string
		want Tree
	}{
		"hybrid": {hybrid, Tree{
			{Path: "/sys/fs/cgroup/cpu,cpuacct", Options: "cpu,cpuacct"},
			{Path: "/sys/fs/cgroup/systemd", Options: "none,name=systemd"},
			{Path: "/sys/fs/cgroup/unified", Unified: true},
		}},
		"unified": {unified, Tree{{Path: "/sys/fs/cgroup", Unified: true}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(strings.NewReader(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseNothing(t *testing.T) {
	for _, text := range []string{"", "garbage\n", "1 2 3 - x\n"} {
		if tree, err := Parse(strings.NewReader(text)); err == nil {
			t.Errorf("%q: got %v, want an error", text, tree)
		}
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Directories stand in for hierarchies: they show what is made and written, not what the kernel makes of it.
func TestMakeInheritsProcessors(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "cpuset.cpus"), "0-1\n")
	write(t, filepath.Join(dir, "cpuset.mems"), "0\n")
	for _, group := range []string{"lab", "lab/n1"} { // the kernel makes these files
		write(t, filepath.Join(dir, group, "cpuset.cpus"), "\n")
		write(t, filepath.Join(dir, group, "cpuset.mems"), "\n")
	}
	if err := (Tree{{Path: dir}}).Make("lab/n1"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(dir, "lab/n1/cpuset.cpus")); got != "0-1\n" {
		t.Errorf("cpuset.cpus: got %q", got)
	}
}

// In version 2 a group may not have processes and hand controllers down: the machine's own group must be left alone until asked.
func TestDelegateOnlyWhenAsked(t *testing.T) {
	dir := t.TempDir()
	tree := Tree{{Path: dir, Unified: true}}
	write(t, filepath.Join(dir, "cgroup.controllers"), "cpu\n")
	write(t, filepath.Join(dir, "lab/n1/cgroup.controllers"), "cpu\n")
	if err := errors.Join(tree.Make("lab/n1"), tree.MakeLeaf("lab/n1", "init")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(dir, "cgroup.subtree_control")); got != "+cpu" {
		t.Errorf("root hands down %q, want +cpu", got)
	}
	control := filepath.Join(dir, "lab/n1/cgroup.subtree_control")
	if _, err := os.Stat(control); err == nil {
		t.Error("n1 hands controllers down before it was asked to")
	}
	tree.Delegate("lab/n1")
	if got := read(t, control); got != "+cpu" {
		t.Errorf("n1 hands down %q, want +cpu", got)
	}
}

func TestProcessesAndHas(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	tree := Tree{{Path: one}, {Path: two}}
	write(t, filepath.Join(one, "lab/n1/cgroup.procs"), "12\n7\n")
	write(t, filepath.Join(one, "lab/n1/pods/a/cgroup.procs"), "30\n")
	write(t, filepath.Join(two, "lab/n1/cgroup.procs"), "7\n")
	if diff := cmp.Diff([]int{7, 12, 30}, tree.Processes("lab")); diff != "" {
		t.Error(diff)
	}
	for pid, want := range map[int]bool{7: true, 12: false, 30: false, 99: false} {
		if got := tree.Has("lab/n1", pid); got != want {
			t.Errorf("process %d: got %t, want %t", pid, got, want)
		}
	}
}

func TestClearRefusesForeignGroups(t *testing.T) {
	tree := Tree{{Path: t.TempDir()}}
	for _, group := range []string{"", "..", "lab/../other"} {
		if err := tree.Clear(t.Context(), group); err == nil {
			t.Errorf("%q: no error", group)
		}
	}
}

func TestClearOfNothing(t *testing.T) {
	if err := (Tree{{Path: t.TempDir()}}).Clear(t.Context(), "lab"); err != nil {
		t.Error(err)
	}
}

// The test's own process is in the group: it must not be killed, and the group must be reported as busy.
func TestClearGivesUp(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "lab/cgroup.procs"), strconv.Itoa(os.Getpid())+"\n")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := (Tree{{Path: dir}}).Clear(ctx, "lab"); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v, want %v", err, ErrBusy)
	}
}
