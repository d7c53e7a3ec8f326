// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/sealane/sealane/test/lab/internal/build"
	"github.com/sealane/sealane/test/lab/internal/machine"
	"github.com/sealane/sealane/test/lab/internal/plan"
)

// spec describes a node's machine.
func (l *Lab) spec(o plan.Options, n plan.Node) (machine.Spec, error) {
	path, err := o.SearchPath()
	if err != nil {
		return machine.Spec{}, err
	}
	targets, err := build.Find("plugins")
	if err != nil {
		return machine.Spec{}, err
	}
	var plugins []string
	for _, name := range o.Plugins() {
		plugins = append(plugins, filepath.Join(l.builder.Dir(targets[0]), name))
	}
	return machine.Spec{
		Kind:     machine.Node,
		Name:     n.Name,
		Group:    l.paths.Group() + "/" + n.Name,
		Dir:      l.nodeDir(n.Name),
		Logs:     filepath.Join(l.paths.Logs(), n.Name),
		Programs: l.paths.Programs(),
		Images:   l.paths.Images(),
		Path:     path,
		Plugins:  plugins,
		Hide:     []string{"/tmp", "/root", "/home", "/mnt", l.paths.Base, l.paths.Cache},
		Sysctls:  map[string]string{"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"},
	}, nil
}

// startNode makes a node's machine and connects it. Nothing runs on it yet.
func (l *Lab) startNode(ctx context.Context, o plan.Options, n plan.Node) (*machine.Machine, error) {
	spec, err := l.spec(o, n)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(spec.Dir, 0o755); err != nil {
		return nil, err
	}
	if err := writeJSON(l.nodeFile(n.Name), n); err != nil {
		return nil, err
	}
	if err := l.configure(o, n, spec.Etc()); err != nil {
		return nil, err
	}
	m, err := machine.Launch(ctx, l.tree, spec)
	if err != nil {
		return nil, err
	}
	return m, l.cable(ctx, o, n, m)
}

// spawn leaves a daemon running on a node. Its output goes to /var/log/lab there, which is in the lab's log directory. The
// shell lets go of its own output first: the daemon's process holds it, too, until it gets a turn, which can take a while.
const spawn = `ulimit -n "$(ulimit -Hn)"
log=/var/log/lab/$1.log
shift
exec </dev/null >>"$log" 2>&1
setsid "$@" &`

// start starts daemons on a node.
func (l *Lab) start(ctx context.Context, o plan.Options, n plan.Node, daemons ...string) error {
	m, err := l.machineOf(n.Name)
	if err != nil {
		return err
	}
	for _, daemon := range daemons {
		argv, err := o.Arguments(daemon, n)
		if err != nil {
			return err
		}
		if _, err := m.Run(ctx, append([]string{"sh", "-c", spawn, "sh", daemon}, argv...)...); err != nil {
			return err
		}
	}
	return nil
}

// running lists the processes of a node's daemons by name.
func (l *Lab) running(name string) map[string][]int {
	found := map[string][]int{}
	for _, pid := range l.tree.Processes(l.paths.Group() + "/" + name) {
		program, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
		if err == nil && slices.Contains(plan.Daemons(), filepath.Base(program)) {
			found[filepath.Base(program)] = append(found[filepath.Base(program)], pid)
		}
	}
	return found
}

// Start starts a daemon that does not run.
func (l *Lab) Start(ctx context.Context, name, daemon string) error {
	s, err := l.remembered()
	if err != nil {
		return err
	}
	n, err := l.node(name)
	if err != nil {
		return err
	}
	if pids := l.running(name)[daemon]; len(pids) > 0 {
		return fmt.Errorf("%w: %s runs on %s already: process %v", ErrDaemon, daemon, name, pids)
	}
	return l.start(ctx, s.Options, n, daemon)
}

// Stop ends a daemon and returns when it has ended.
func (l *Lab) Stop(ctx context.Context, name, daemon string) error {
	if _, err := l.remembered(); err != nil {
		return err
	}
	if _, err := l.node(name); err != nil {
		return err
	}
	pids := l.running(name)[daemon]
	if len(pids) == 0 {
		return fmt.Errorf("%w: %s does not run on %s", ErrDaemon, daemon, name)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end %s: %w", daemon, err)
		}
	}
	return until(ctx, daemon+" to end", func(context.Context) error {
		if pids := l.running(name)[daemon]; len(pids) > 0 {
			return fmt.Errorf("process %v", pids)
		}
		return nil
	})
}

// containerdUp waits until a node's containerd takes connections.
func (l *Lab) containerdUp(ctx context.Context, m *machine.Machine) error {
	socket := filepath.Join("/proc", strconv.Itoa(m.PID), "root/run/containerd/containerd.sock")
	return until(ctx, "containerd on "+m.Spec.Name, func(context.Context) error {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// importImages gives a node the lab's images.
func (l *Lab) importImages(ctx context.Context, m *machine.Machine) error {
	file, err := l.images.Path()
	if err != nil {
		return err
	}
	inside, err := filepath.Rel(l.paths.Images(), file)
	if err != nil {
		return err
	}
	if err := l.containerdUp(ctx, m); err != nil {
		return err
	}
	_, err = m.Run(ctx, "ctr", "--namespace", "k8s.io", "images", "import", "--local", filepath.Join("/opt/images", inside))
	return err
}
