// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sealane/sealane/test/lab/internal/build"
	"github.com/sealane/sealane/test/lab/internal/plan"
)

// program is the path of one of the programs of a built target.
func (l *Lab) program(target, name string) (string, error) {
	targets, err := build.Find(target)
	if err != nil {
		return "", err
	}
	return filepath.Join(l.builder.Dir(targets[0]), name), nil
}

// Kubeconfig is the path of the administrator's kubeconfig. Its server can be reached on the wire and on the nodes.
func (l *Lab) Kubeconfig() string { return filepath.Join(l.paths.PKI(), adminConf) }

// Kubectl is a kubectl command of the cluster's administrator.
func (l *Lab) Kubectl(ctx context.Context, args ...string) (*exec.Cmd, error) {
	wire, err := l.Machine(plan.WireName)
	if err != nil {
		return nil, err
	}
	kubectl, err := l.program("kubernetes", "kubectl")
	if err != nil {
		return nil, err
	}
	return wire.Command(ctx, append([]string{kubectl, "--kubeconfig=" + l.Kubeconfig()}, args...)...), nil
}

// E2E is a run of upstream's test suite: the tests whose name matches the regular expression focus.
func (l *Lab) E2E(ctx context.Context, focus string, args []string) (*exec.Cmd, error) {
	wire, err := l.Machine(plan.WireName)
	if err != nil {
		return nil, err
	}
	targets, err := build.Find("e2e")
	if err != nil {
		return nil, err
	}
	if err := l.builder.Ensure(ctx, targets); err != nil {
		return nil, err
	}
	kubectl, err := l.program("kubernetes", "kubectl")
	if err != nil {
		return nil, err
	}
	nodes, err := l.nodes()
	if err != nil {
		return nil, err
	}
	dir := l.builder.Dir(targets[0])
	argv := []string{filepath.Join(dir, "ginkgo"), "--no-color", "-v", "--focus=" + focus}
	argv = append(append(argv, args...), filepath.Join(dir, "e2e.test"), "--",
		// Counted by upstream only in the first of its processes; in the others, tests that need two nodes skip themselves.
		fmt.Sprintf("--num-nodes=%d", len(nodes)),
		"--provider=skeleton", "--disable-log-dump", "--kubeconfig="+l.Kubeconfig(), "--kubectl-path="+kubectl,
		"--report-dir="+filepath.Join(l.paths.Logs(), "e2e"))
	return wire.Command(ctx, argv...), nil
}

// Load gives an image archive to every node.
func (l *Lab) Load(ctx context.Context, archive string) error {
	if _, err := l.remembered(); err != nil {
		return err
	}
	nodes, err := l.nodes()
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, n := range nodes {
		group.Go(func() error { return l.loadOn(ctx, n, archive) })
	}
	return group.Wait()
}

func (l *Lab) loadOn(ctx context.Context, n plan.Node, archive string) error {
	m, err := l.machineOf(n.Name)
	if err != nil {
		return err
	}
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	cmd := m.Command(ctx, "ctr", "--namespace", "k8s.io", "images", "import", "--local", "-")
	cmd.Stdin = file
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("load %s on %s: %w: %s", archive, n.Name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Status prints what runs, and whether that is all that should.
func (l *Lab) Status(ctx context.Context, out io.Writer) error {
	s, err := l.remembered()
	if err != nil {
		return err
	}
	nodes, err := l.nodes()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "lab %s: %s, kube-proxy %s, CNI %s, MTU %d, complete %t\n", l.paths.Name,
		s.Options.Families, s.Options.Proxy, s.Options.CNI, s.Options.MTU, s.Complete)
	for _, n := range nodes {
		fmt.Fprintln(out, l.nodeLine(s.Options, n))
	}
	for _, what := range [][]string{{"get", "nodes", "-o", "wide"}, {"get", "pods", "-A", "-o", "wide"}} {
		cmd, err := l.Kubectl(ctx, what...)
		if err != nil {
			return err
		}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("ask the API server: %w", err)
		}
	}
	return nil
}

func (l *Lab) nodeLine(o plan.Options, n plan.Node) string {
	if _, err := l.machineOf(n.Name); err != nil {
		return n.Name + " DOWN"
	}
	want := o.Daemons(n)
	if o.CNI == plan.Flannel {
		want = append(want, plan.Flannel)
	}
	running := l.running(n.Name)
	var words []string
	for _, daemon := range want {
		pids := running[daemon]
		if len(pids) == 0 {
			words = append(words, daemon+" ENDED")
			continue
		}
		words = append(words, fmt.Sprintf("%s %d MiB", daemon, slices.Max(resident(pids))>>20))
	}
	return fmt.Sprintf("%s %s: %s", n.Name, plan.Join(o.Families.NodeAddresses(n.Index)), strings.Join(words, ", "))
}

// resident is the resident memory of processes, in bytes; 0 for one that has just ended.
func resident(pids []int) []int {
	sizes := make([]int, len(pids))
	for i, pid := range pids {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "statm"))
		if fields := strings.Fields(string(text)); err == nil && len(fields) > 1 {
			pages, _ := strconv.Atoi(fields[1])
			sizes[i] = pages * os.Getpagesize()
		}
	}
	return sizes
}
