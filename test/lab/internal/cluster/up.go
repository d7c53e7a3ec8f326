// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/test/lab/internal/build"
	"github.com/sealane/sealane/test/lab/internal/plan"
)

// patience is how long one step of "up" may take on a slow machine.
const patience = 3 * time.Minute

// starting is how long a new process may look like the shell that starts it.
const starting = 2 * time.Second

// Up builds what is missing and starts a cluster. If ctx ends before that, nothing is left.
func (l *Lab) Up(ctx context.Context, o plan.Options) error {
	if err := o.Validate(); err != nil {
		return err
	}
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if s, err := l.remembered(); err == nil && s.Complete {
		return fmt.Errorf("%w already: use \"lab down\" first", ErrUp)
	}
	if err := l.checkDisk(); err != nil {
		return err
	}
	if err := l.prepare(ctx, o); err != nil {
		return err
	}
	if err := l.clean(ctx); err != nil { // an earlier "up" may have been cut off
		return err
	}
	if err := os.RemoveAll(l.paths.Logs()); err != nil {
		return err
	}
	err = l.bringUp(ctx, o)
	if err == nil {
		l.console.Say("up: %d nodes, %s, kube-proxy %s, CNI %s; logs in %s", o.Nodes, o.Families, o.Proxy, o.CNI, l.paths.Logs())
		return nil
	}
	if ctx.Err() == nil {
		return fmt.Errorf("%w (logs in %s; what came up is left for a look: \"lab down\" removes it)", err, l.paths.Logs())
	}
	l.console.Say("interrupted: removing what came up")
	return errors.Join(context.Cause(ctx), l.clean(context.WithoutCancel(ctx)))
}

// prepare builds and installs what a cluster with these options needs.
func (l *Lab) prepare(ctx context.Context, o plan.Options) error {
	targets, err := o.Targets()
	if err != nil {
		return err
	}
	if err := build.EnsureTools(ctx, l.console, build.RunTools()); err != nil {
		return err
	}
	if err := l.builder.Ensure(ctx, targets); err != nil {
		return err
	}
	if o.CNI == plan.Flannel {
		// Replies that cross flannel's bridge must pass netfilter, or services do not work on their own node.
		// Where it is built into the kernel there is nothing to load.
		_ = exec.CommandContext(ctx, "modprobe", "-q", "br_netfilter").Run()
	}
	_, err = l.images.Ensure(ctx)
	return err
}

// checkDisk refuses a state directory on which containerd and etcd could not work.
func (l *Lab) checkDisk() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(l.paths.State(), &fs); err != nil {
		return err
	}
	switch fs.Type {
	case unix.TMPFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC, unix.RAMFS_MAGIC:
		return fmt.Errorf("%w: %s is in memory or an overlay: set SEALANE_LAB to a directory on a disk", ErrDisk, l.paths.State())
	}
	return nil
}

func (l *Lab) bringUp(ctx context.Context, o plan.Options) error {
	if err := writeJSON(l.stateFile(), state{Options: o}); err != nil {
		return err
	}
	nodes := make([]plan.Node, o.Nodes)
	for i := range nodes {
		nodes[i] = plan.Node{Name: fmt.Sprintf("n%d", i+1), Index: i + 1}
	}
	// The slow work of one step goes on behind the next.
	background, stop := context.WithCancel(ctx)
	imports, importing := errgroup.WithContext(background)
	defer func() {
		stop()
		_ = imports.Wait()
	}()
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"start machines", func(ctx context.Context) error { return l.startMachines(ctx, o, nodes) }},
		{"start API server", func(ctx context.Context) error {
			for _, n := range nodes {
				imports.Go(func() error { return l.startContainerd(importing, o, n) })
			}
			return l.startAPI(ctx, o, nodes[0])
		}},
		{"register nodes", func(ctx context.Context) error { return l.register(ctx, o, nodes) }},
		{"import images", func(context.Context) error { return imports.Wait() }},
		{"start CNI " + o.CNI, func(ctx context.Context) error { return l.startCNI(ctx, o, nodes) }},
	}
	for _, s := range steps {
		limited, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("%s took longer than %s", s.name, patience))
		err := l.console.Step(limited, s.name, s.do)
		cancel()
		if err != nil {
			return err
		}
	}
	return writeJSON(l.stateFile(), state{Options: o, Complete: true})
}

func (l *Lab) startMachines(ctx context.Context, o plan.Options, nodes []plan.Node) error {
	if err := l.makePKI(o); err != nil {
		return err
	}
	if err := l.startWire(ctx, o); err != nil {
		return err
	}
	return forEach(ctx, nodes, func(ctx context.Context, n plan.Node) error {
		_, err := l.startNode(ctx, o, n)
		return err
	})
}

func forEach(ctx context.Context, nodes []plan.Node, do func(context.Context, plan.Node) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, n := range nodes {
		group.Go(func() error { return do(ctx, n) })
	}
	return group.Wait()
}

func (l *Lab) startContainerd(ctx context.Context, o plan.Options, n plan.Node) error {
	if err := l.start(ctx, o, n, plan.Containerd); err != nil {
		return err
	}
	m, err := l.machineOf(n.Name)
	if err != nil {
		return err
	}
	return l.importImages(ctx, m)
}

func (l *Lab) startAPI(ctx context.Context, o plan.Options, n plan.Node) error {
	if err := l.start(ctx, o, n, plan.Etcd, plan.APIServer); err != nil {
		return err
	}
	a, err := l.connect(o)
	if err != nil {
		return err
	}
	began := time.Now()
	wait, give := context.WithCancelCause(ctx)
	defer give(nil)
	err = until(wait, "the API server", func(ctx context.Context) error {
		if d := l.running(n.Name); time.Since(began) > starting && (len(d[plan.Etcd]) == 0 || len(d[plan.APIServer]) == 0) {
			give(fmt.Errorf("%w: etcd or kube-apiserver ended: see %s", ErrDaemon, filepath.Join(l.paths.Logs(), n.Name)))
		}
		if err := a.get(ctx, "/readyz", nil); err != nil {
			return err
		}
		return a.get(ctx, "/api/v1/namespaces/kube-system", nil)
	})
	if err != nil {
		return err
	}
	return l.start(ctx, o, n, plan.ControllerManager, plan.Scheduler)
}

// register starts what makes nodes of machines, and waits until the cluster knows them all.
func (l *Lab) register(ctx context.Context, o plan.Options, nodes []plan.Node) error {
	a, err := l.connect(o)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return l.applyBase(ctx, o) })
	for _, n := range nodes {
		group.Go(func() error { return l.join(ctx, o, n, a) })
	}
	return group.Wait()
}

// join makes a node of a machine whose containerd has been started.
func (l *Lab) join(ctx context.Context, o plan.Options, n plan.Node, a *api) error {
	m, err := l.machineOf(n.Name)
	if err != nil {
		return err
	}
	if err := l.containerdUp(ctx, m); err != nil { // kubelet gives up without
		return err
	}
	daemons := o.Daemons(n)
	if err := l.start(ctx, o, n, daemons[slices.Index(daemons, plan.Kubelet):]...); err != nil {
		return err
	}
	if _, err := a.registered(ctx, o, n.Name); err != nil {
		return err
	}
	if !n.Control() {
		return nil
	}
	return a.call(ctx, "PATCH", nodesPath+n.Name, []byte(`{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}`), nil)
}

func (l *Lab) applyBase(ctx context.Context, o plan.Options) error {
	text, err := o.Manifest()
	if err != nil {
		return err
	}
	cmd, err := l.Kubectl(ctx, "apply", "--server-side", "--validate=ignore", "-f", "-")
	if err != nil {
		return err
	}
	cmd.Stdin = bytes.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apply what every cluster has: %w: %s", err, out)
	}
	return nil
}
