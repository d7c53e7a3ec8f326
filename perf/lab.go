// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/perf/limit"
	"github.com/sealane/sealane/perf/netnsexec"
)

// lab is a cluster of two nodes that test/lab runs.
type lab struct {
	program string // test/lab/lab
	name    string
}

// onNode is where the plugins are called.
const onNode = "n2"

// agnhost is under this name on every node of the lab.
const agnhost = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"

// manifest makes three pods that only lend their network: what is run in there is
// run by us.
const manifest = `
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Pod, metadata: {name: bench-far}, spec: {nodeName: n1, terminationGracePeriodSeconds: 0, containers: [{name: main, image: "IMAGE", imagePullPolicy: Never, args: [pause]}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: bench-near}, spec: {nodeName: n2, terminationGracePeriodSeconds: 0, containers: [{name: main, image: "IMAGE", imagePullPolicy: Never, args: [pause]}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: bench-server}, spec: {nodeName: n2, terminationGracePeriodSeconds: 0, containers: [{name: main, image: "IMAGE", imagePullPolicy: Never, args: [pause]}]}}
`

// run runs a command of the lab and returns its standard output.
func (l lab) run(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := netnsexec.Command(ctx, append([]string{l.program}, args...)...)
	cmd.Env = append(os.Environ(), "SEALANE_LAB_NAME="+l.name)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := netnsexec.Output(cmd)
	if err != nil {
		return "", fmt.Errorf("%s: %w", l.name, err)
	}
	return string(out), nil
}

// subject makes the pods and brings this program to the node.
func (l lab) subject(ctx context.Context, name string) (subject, error) {
	s := subject{name: name, cni: l.timePods}
	if err := l.carry(ctx); err != nil {
		return s, err
	}
	if _, err := l.run(ctx, strings.ReplaceAll(manifest, "IMAGE", agnhost), "kubectl", "apply", "-f", "-"); err != nil {
		return s, err
	}
	if _, err := l.run(ctx, "", "kubectl", "wait", "--for=condition=Ready", "--timeout=120s",
		"pod/bench-far", "pod/bench-near", "pod/bench-server"); err != nil {
		return s, err
	}
	far, _, err := l.pod(ctx, "bench-far", "n1")
	if err != nil {
		return s, err
	}
	near, _, err := l.pod(ctx, "bench-near", "n2")
	if err != nil {
		return s, err
	}
	server, to, err := l.pod(ctx, "bench-server", "n2")
	s.paths = map[string]netnsexec.Path{
		"same":  {Client: near, Server: server, To: to},
		"cross": {Client: far, Server: server, To: to},
	}
	return s, err
}

// pod returns the network namespace and the address of a pod.
func (l lab) pod(ctx context.Context, name, node string) (netnsexec.Netns, netip.Addr, error) {
	text, err := l.run(ctx, "", "kubectl", "get", "pod", name, "-o", "jsonpath={.status.podIP}")
	if err != nil {
		return "", netip.Addr{}, err
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return "", addr, fmt.Errorf("address of pod %s: %w", name, err)
	}
	pid, err := l.run(ctx, "", "pid", node)
	if err != nil {
		return "", addr, err
	}
	// The node's own names for namespaces, seen through its first process.
	all, err := filepath.Glob(filepath.Join("/proc", strings.TrimSpace(pid), "root/run/netns/*"))
	if err != nil {
		return "", addr, err
	}
	for _, path := range all {
		has, err := netnsexec.Netns(path).Run(ctx, "ip", "-oneline", "address", "show", "scope", "global")
		if err == nil && strings.Contains(string(has), " "+addr.String()+"/") {
			return netnsexec.Netns(path), addr, nil
		}
	}
	return "", addr, fmt.Errorf("%w: no network namespace of %s has the address %s of %s", ErrLab, node, addr, name)
}

// carry puts this program on the node, which sees nothing of what is outside.
func (l lab) carry(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	f, err := os.Open(self)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := netnsexec.Command(ctx, l.program, "sh", onNode, "sh", "-c", "cat >"+carried+" && chmod 755 "+carried)
	cmd.Env = append(os.Environ(), "SEALANE_LAB_NAME="+l.name)
	cmd.Stdin = f
	_, err = netnsexec.Output(cmd)
	return err
}

const carried = "/usr/local/bin/sealane-perf"

// declared is the label of the pods that timePods makes at the API server.
const declared = "sealane.io/bench=cni"

// timePods times the plugins of the node. A CNI that enforces policies connects only
// pods that the API server has, so they are made there first; the kubelet, which
// would start them, stands still meanwhile.
func (l lab) timePods(ctx context.Context, count, parallel int) (t cniTimes, err error) {
	if err := l.kubelet(ctx, "STOP"); err != nil {
		return t, err
	}
	defer func() {
		ctx := context.WithoutCancel(ctx)
		_, gone := l.run(ctx, "", "kubectl", "delete", "pod", "-l", declared, "--force", "--grace-period=0")
		err = errors.Join(err, gone, l.kubelet(ctx, "CONT"))
	}()
	var list strings.Builder
	list.WriteString("apiVersion: v1\nkind: List\nitems:\n")
	key, value, _ := strings.Cut(declared, "=")
	for i := range count {
		fmt.Fprintf(&list, "- {apiVersion: v1, kind: Pod, metadata: {name: bench-cni-%d, labels: {%s: %s}}, "+
			"spec: {nodeName: %s, containers: [{name: main, image: %q}]}}\n", i, key, value, onNode, agnhost)
	}
	pods, err := l.run(ctx, list.String(), "kubectl", "create", "-f", "-", "-o", `go-template={{.metadata.name}} {{.metadata.uid}}{{"\n"}}`)
	if err != nil {
		return t, err
	}
	out, err := l.run(ctx, pods, "sh", onNode, carried, "cni", "-parallel="+strconv.Itoa(parallel))
	if err != nil {
		return t, err
	}
	return t, json.Unmarshal([]byte(out), &t)
}

// kubelet sends a signal to the kubelet of the node.
func (l lab) kubelet(ctx context.Context, signal string) error {
	_, err := l.run(ctx, "", "sh", onNode, "pkill", "-"+signal, "-x", "kubelet")
	return err
}

// mtu returns the MTU of a pod, in bytes.
func mtu(n netnsexec.Netns) (int, error) {
	h, err := nl.OpenAt(string(n))
	if err != nil {
		return 0, err
	}
	l, err := h.LinkByName("eth0")
	return l.MTU, errors.Join(err, h.Close())
}

// subjects prepares all that is compared. What they hold is ended by close, also
// after an error.
func (c comparisonConfig) subjects(ctx context.Context) (all []subject, closing func() error, err error) {
	b := limit.New()
	for _, name := range []string{wireguard, vxlan, flannel} {
		if name == flannel && c.withoutFlannel() {
			continue
		}
		s, err := lab{program: c.lab, name: c.labs[name]}.subject(ctx, name)
		if err != nil {
			return nil, b.Close, err
		}
		all = append(all, s)
	}
	size, err := mtu(all[0].paths["same"].Client)
	if err != nil {
		return nil, b.Close, err
	}
	same, err := b.Redirect(ctx, size)
	if err != nil {
		return nil, b.Close, err
	}
	cross, err := b.WireGuard(ctx, c.wireguardGo, size)
	if err != nil {
		return nil, b.Close, err
	}
	return append(all,
		subject{name: redirect, paths: map[string]netnsexec.Path{"same": same}},
		subject{name: bareWG, paths: map[string]netnsexec.Path{"cross": cross}},
	), b.Close, nil
}
