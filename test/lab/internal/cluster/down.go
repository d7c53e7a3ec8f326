// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sealane/sealane/test/lab/internal/plan"
)

// endTime is how long processes that were killed may take to be gone.
const endTime = 30 * time.Second

// Down ends the lab and removes all that it made, but the logs. A lab that is not up, or half up, is no error.
func (l *Lab) Down(ctx context.Context) error {
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	began := time.Now()
	if err := l.clean(ctx); err != nil {
		return err
	}
	if err := l.forget(); err != nil {
		return err
	}
	l.console.Say("down (%s)", time.Since(began).Round(100*time.Millisecond))
	return nil
}

// clean removes everything but logs. It needs no memory of what there is.
func (l *Lab) clean(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	if err := l.tree.Clear(ctx, l.paths.Group()); err != nil {
		return err
	}
	entries, err := os.ReadDir(l.paths.State())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(l.paths.Logs()) {
			err = errors.Join(err, removeAll(filepath.Join(l.paths.State(), e.Name())))
		}
	}
	return err
}

// forget removes the lab's directory where it holds no logs, and says where they are where it does.
func (l *Lab) forget() error {
	if _, err := os.Stat(l.paths.Logs()); err == nil {
		l.console.Say("logs of the last run stay in %s", l.paths.Logs())
		return nil
	}
	err := os.RemoveAll(l.paths.State())
	_ = os.Remove(l.paths.Base) // stays where another lab is
	return err
}

// removeAll removes a directory, unless something is mounted in it: then its content could be anybody's.
func removeAll(dir string) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && (fields[4] == dir || strings.HasPrefix(fields[4], dir+"/")) {
			return fmt.Errorf("remove %s: %s is mounted", dir, fields[4])
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// AddNode starts one more node, which joins the running cluster.
func (l *Lab) AddNode(ctx context.Context, name string) error {
	if err := plan.CheckName(name); err != nil {
		return err
	}
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s, err := l.remembered()
	if err != nil {
		return err
	}
	n, err := l.newNode(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("add node took longer than %s", patience))
	defer cancel()
	return l.console.Step(ctx, "add node "+name, func(ctx context.Context) error { return l.add(ctx, s.Options, n) })
}

// newNode gives a node the lowest index that is free.
func (l *Lab) newNode(name string) (plan.Node, error) {
	nodes, err := l.nodes()
	if err != nil {
		return plan.Node{}, err
	}
	for _, other := range nodes {
		if other.Name == name {
			return plan.Node{}, fmt.Errorf("%w: there is a %s already", ErrNode, name)
		}
	}
	index, ok := plan.NextIndex(nodes)
	if !ok {
		return plan.Node{}, fmt.Errorf("%w: no address is left", ErrNode)
	}
	return plan.Node{Name: name, Index: index}, nil
}

func (l *Lab) add(ctx context.Context, o plan.Options, n plan.Node) error {
	a, err := l.connect(o)
	if err != nil {
		return err
	}
	if _, err := l.startNode(ctx, o, n); err != nil {
		return err
	}
	if err := l.startContainerd(ctx, o, n); err != nil {
		return err
	}
	if err := l.join(ctx, o, n, a); err != nil {
		return err
	}
	if o.CNI == plan.Flannel {
		return l.joinFlannel(ctx, o, n, a)
	}
	return nil
}

// RemoveNode cuts a node off at once, as if somebody had pulled its plug, and takes it out of the cluster.
func (l *Lab) RemoveNode(ctx context.Context, name string) error {
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s, err := l.remembered()
	if err != nil {
		return err
	}
	n, err := l.node(name)
	if err != nil {
		return err
	}
	if n.Control() {
		return fmt.Errorf("%w: %s carries the control plane", ErrNode, name)
	}
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	return l.console.Step(ctx, "remove node "+name, func(ctx context.Context) error {
		if err := l.tree.Clear(ctx, l.paths.Group()+"/"+name); err != nil {
			return err
		}
		if err := removeAll(l.nodeDir(name)); err != nil {
			return err
		}
		a, err := l.connect(s.Options)
		if err != nil {
			return err
		}
		return a.call(ctx, "DELETE", nodesPath+name, nil, nil)
	})
}
