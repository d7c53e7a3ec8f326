// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package cluster runs a Kubernetes cluster on the lab's machines.
//
// Everything that a cluster consists of hangs on processes in one control group, and on one directory.
// Hence "down" needs to know nothing about what "up" did, or how far it came.
package cluster

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/sealane/sealane/test/lab/internal/build"
	"github.com/sealane/sealane/test/lab/internal/cgroup"
	"github.com/sealane/sealane/test/lab/internal/console"
	"github.com/sealane/sealane/test/lab/internal/image"
	"github.com/sealane/sealane/test/lab/internal/machine"
	"github.com/sealane/sealane/test/lab/internal/paths"
	"github.com/sealane/sealane/test/lab/internal/plan"
)

// Lab is one lab, up or down.
type Lab struct {
	paths   paths.Paths
	tree    cgroup.Tree
	console *console.Console
	builder *build.Builder
	images  image.Set
}

// Open returns the lab at p; it changes nothing.
func Open(p paths.Paths, c *console.Console) (*Lab, error) {
	tree, err := cgroup.Open()
	if err != nil {
		return nil, err
	}
	b := build.New(p, c)
	return &Lab{paths: p, tree: tree, console: c, builder: b, images: image.Set{Dir: p.Images(), Builder: b, Console: c}}, nil
}

// state is what the lab remembers of itself.
type state struct {
	Options  plan.Options
	Complete bool // "up" came to its end
}

func (l *Lab) stateFile() string          { return filepath.Join(l.paths.State(), "lab.json") }
func (l *Lab) nodeDir(name string) string { return filepath.Join(l.paths.Nodes(), name) }
func (l *Lab) wireDir() string            { return filepath.Join(l.paths.State(), plan.WireName) }

func (l *Lab) nodeFile(name string) string { return filepath.Join(l.nodeDir(name), "node.json") }

func writeJSON(file string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

func readJSON(file string, v any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	return nil
}

// remembered reads the lab's state, or returns [ErrDown].
func (l *Lab) remembered() (state, error) {
	var s state
	err := readJSON(l.stateFile(), &s)
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrDown
	}
	return s, err
}

// nodes lists the nodes that there are, n1 first.
func (l *Lab) nodes() ([]plan.Node, error) {
	files, err := filepath.Glob(l.nodeFile("*"))
	if err != nil {
		return nil, err
	}
	all := make([]plan.Node, len(files))
	for i, file := range files {
		if err := readJSON(file, &all[i]); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b plan.Node) int { return cmp.Compare(a.Index, b.Index) })
	return all, nil
}

// node finds a node by its name.
func (l *Lab) node(name string) (plan.Node, error) {
	var n plan.Node
	if err := plan.CheckName(name); err != nil {
		return n, err
	}
	err := readJSON(l.nodeFile(name), &n)
	if errors.Is(err, fs.ErrNotExist) {
		return n, fmt.Errorf("%w: there is no %s", ErrNode, name)
	}
	return n, err
}

// machineOf returns the running machine of a node, or of the wire.
func (l *Lab) machineOf(name string) (*machine.Machine, error) {
	if name == plan.WireName {
		return machine.Find(l.tree, l.wireDir())
	}
	n, err := l.node(name)
	if err != nil {
		return nil, err
	}
	return machine.Find(l.tree, l.nodeDir(n.Name))
}

// Machine returns the running machine of a node, or of the wire by the name "wire".
func (l *Lab) Machine(name string) (*machine.Machine, error) {
	if _, err := l.remembered(); err != nil {
		return nil, err
	}
	return l.machineOf(name)
}

// lock makes sure that no other command changes the lab meanwhile.
func (l *Lab) lock() (unlock func(), err error) {
	if err := os.MkdirAll(l.paths.State(), 0o755); err != nil {
		return nil, err
	}
	dir, err := os.Open(l.paths.State())
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		dir.Close()
		return nil, fmt.Errorf("%w: %s", ErrBusy, l.paths.Name)
	}
	return func() { dir.Close() }, nil
}
