// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package cgroup makes, fills, empties and removes the lab's control groups. A group is one path
// below every hierarchy that the machine has mounted: several of version 1, one of version 2, or both.
package cgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Root is where the machine mounts its hierarchies.
const Root = "/sys/fs/cgroup"

// ErrBusy means that processes of a group did not end.
var ErrBusy = errors.New("control group still in use")

// Hierarchy is one mounted tree of control groups.
type Hierarchy struct {
	Path    string // mount point
	Unified bool   // version 2
	Options string // what mount(8) needs to mount a version 1 hierarchy again
}

// Tree is a set of hierarchies in which every group exists under the same path.
type Tree []Hierarchy

// Open reads the machine's hierarchies.
func Open() (Tree, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return Parse(f)
}

// Parse reads hierarchies from the text of proc_pid_mountinfo(5).
func Parse(mountinfo io.Reader) (Tree, error) {
	var tree Tree
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 || !within(left[4], Root) {
			continue
		}
		h := Hierarchy{Path: left[4], Unified: right[0] == "cgroup2"}
		if !h.Unified && right[0] != "cgroup" {
			continue
		}
		if !h.Unified {
			h.Options = mountOptions(right[2])
		}
		tree = append(tree, h)
	}
	if len(tree) == 0 {
		return nil, fmt.Errorf("find control groups: nothing mounted at %s", Root)
	}
	return tree, lines.Err()
}

func within(path, root string) bool {
	return path == root || strings.HasPrefix(path, root+"/")
}

// mountOptions keeps what names a version 1 hierarchy: its controllers or its name.
func mountOptions(super string) string {
	var keep []string
	controllers := false
	for opt := range strings.SplitSeq(super, ",") {
		switch {
		case strings.HasPrefix(opt, "name="):
			keep = append(keep, opt)
		case opt == "rw" || opt == "ro" || opt == "xattr" || opt == "clone_children" || strings.Contains(opt, "="):
		default:
			keep, controllers = append(keep, opt), true
		}
	}
	if !controllers {
		keep = slices.Insert(keep, 0, "none")
	}
	return strings.Join(keep, ",")
}

// Make creates group in every hierarchy, with its parents, which hand their controllers down to it.
func (t Tree) Make(group string) error {
	for _, h := range t {
		dir := h.Path
		for part := range strings.SplitSeq(group, "/") {
			parent := dir
			dir = filepath.Join(dir, part)
			if h.Unified {
				enableControllers(parent)
			}
			if err := makeDir(parent, dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// MakeLeaf creates a group below one that is there. It may be called while processes are in that:
// version 2 lets a group have processes or hand controllers down, not both; see [Tree.Delegate].
func (t Tree) MakeLeaf(group, leaf string) error {
	for _, h := range t {
		parent := filepath.Join(h.Path, group)
		if err := makeDir(parent, filepath.Join(parent, leaf)); err != nil {
			return err
		}
	}
	return nil
}

// Delegate makes group hand its controllers down, once its processes have moved into leaves.
func (t Tree) Delegate(group string) {
	for _, h := range t {
		if h.Unified {
			enableControllers(filepath.Join(h.Path, group))
		}
	}
}

func makeDir(parent, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make control group: %w", err)
	}
	if err := inheritCPUs(parent, dir); err != nil {
		return fmt.Errorf("make control group %s: %w", dir, err)
	}
	return nil
}

// enableControllers hands every controller that dir has to its children. One that refuses (a
// real-time process of another group can hold "cpu" back) is left out: kubelet names what it misses.
func enableControllers(dir string) {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for c := range strings.FieldsSeq(string(have)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644)
	}
}

// inheritCPUs copies the processors and memory nodes of a version 1 cpuset: a new one has none, and takes no process.
func inheritCPUs(parent, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) || err == nil && strings.TrimSpace(string(own)) != "" {
			continue
		}
		from, err := os.ReadFile(filepath.Join(parent, name))
		if errors.Is(err, fs.ErrNotExist) || err == nil && strings.TrimSpace(string(from)) == "" {
			continue // version 2: empty means all
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), from, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Join moves the calling process, with all its threads, into group.
func (t Tree) Join(group string) error {
	for _, h := range t {
		if err := os.WriteFile(filepath.Join(h.Path, group, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return fmt.Errorf("join control group: %w", err)
		}
	}
	return nil
}

// Exists reports whether any hierarchy has group.
func (t Tree) Exists(group string) bool {
	return slices.ContainsFunc(t, func(h Hierarchy) bool {
		_, err := os.Stat(filepath.Join(h.Path, group))
		return err == nil
	})
}

// Processes lists the processes of group and of the groups below it, sorted, each once.
func (t Tree) Processes(group string) []int {
	var pids []int
	for _, h := range t {
		// A directory that vanishes during the walk has no process left.
		_ = filepath.WalkDir(filepath.Join(h.Path, group), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return nil
			}
			text, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			for field := range strings.FieldsSeq(string(text)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
					pids = append(pids, pid)
				}
			}
			return nil
		})
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}

// Has reports whether the process pid is in group itself, in every hierarchy.
func (t Tree) Has(group string, pid int) bool {
	for _, h := range t {
		text, err := os.ReadFile(filepath.Join(h.Path, group, "cgroup.procs"))
		if err != nil || !slices.Contains(strings.Fields(string(text)), strconv.Itoa(pid)) {
			return false
		}
	}
	return true
}

// Clear ends every process of group and removes it with the groups below it. A group that is not there is no error.
func (t Tree) Clear(ctx context.Context, group string) error {
	if group == "" || strings.Contains(group, "..") {
		return fmt.Errorf("clear control group %q: not a group of the lab", group)
	}
	// Neither version 1 nor rmdir tells when the last process has gone: look again until it is.
	for wait := time.Millisecond; t.Exists(group); wait = min(2*wait, 100*time.Millisecond) {
		t.kill(group)
		if t.remove(group) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("clear control group %s: %w: processes %v", group, ErrBusy, t.Processes(group))
		case <-time.After(wait):
		}
	}
	return nil
}

func (t Tree) kill(group string) {
	for _, pid := range t.Processes(group) {
		if pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// remove deletes the directories of group, deepest first, and reports whether all are gone.
func (t Tree) remove(group string) bool {
	gone := true
	for _, h := range t {
		var dirs []string
		_ = filepath.WalkDir(filepath.Join(h.Path, group), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		slices.Reverse(dirs)
		for _, dir := range dirs {
			if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				gone = false
			}
		}
	}
	return gone
}
