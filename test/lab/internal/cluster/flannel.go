// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sealane/sealane/test/lab/internal/machine"
)

// startCNI starts flannel and waits for the nodes and their DNS, or does nothing where the caller brings a CNI.
func (l *Lab) startCNI(ctx context.Context, o Options, nodes []node) error {
	if o.CNI != flannel {
		return nil
	}
	a, err := l.connect(o)
	if err != nil {
		return err
	}
	if err := forEach(ctx, nodes, func(ctx context.Context, n node) error { return l.joinFlannel(ctx, o, n, a) }); err != nil {
		return err
	}
	return until(ctx, "CoreDNS", func(ctx context.Context) error {
		var d struct{ Status struct{ ReadyReplicas int } }
		if err := a.get(ctx, "/apis/apps/v1/namespaces/kube-system/deployments/coredns", &d); err != nil {
			return err
		}
		if d.Status.ReadyReplicas < 1 {
			return fmt.Errorf("no replica is ready")
		}
		return nil
	})
}

// joinFlannel starts flannel on a registered node, configures the bridge plugin as it says, and waits until the node is Ready.
func (l *Lab) joinFlannel(ctx context.Context, o Options, n node, a *api) error {
	s, err := a.registered(ctx, o, n.Name)
	if err != nil {
		return err
	}
	if err := l.start(ctx, o, n, flannel); err != nil {
		return err
	}
	m, err := l.machineOf(n.Name)
	if err != nil {
		return err
	}
	root := filepath.Join("/proc", strconv.Itoa(m.PID), "root")
	var mtu int
	err = until(ctx, "flannel on "+n.Name, func(context.Context) error {
		text, err := os.ReadFile(filepath.Join(root, "run/flannel/subnet.env"))
		if err == nil {
			mtu, err = flannelMTU(string(text))
		}
		return err
	})
	if err != nil {
		return err
	}
	config, err := bridgeConfig(s.Spec.PodCIDRs, mtu)
	if err != nil {
		return err
	}
	if err := writeIn(ctx, m, "/etc/cni/net.d/10-flannel.conflist", config); err != nil {
		return err
	}
	return a.ready(ctx, n.Name)
}

// writeIn writes a file on a node, whole or not at all.
func writeIn(ctx context.Context, m *machine.Machine, path, content string) error {
	const script = `cat >"$1.new" && mv "$1.new" "$1"`
	cmd := m.Command(ctx, "sh", "-c", script, "sh", path)
	cmd.Stdin = strings.NewReader(content)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("write %s on %s: %w: %s", path, m.Spec.Name, err, out)
	}
	return nil
}

// flannelMTU finds the MTU in the file that flannel writes when it is ready.
func flannelMTU(env string) (int, error) {
	for line := range strings.Lines(env) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "FLANNEL_MTU="); ok {
			return strconv.Atoi(value)
		}
	}
	return 0, fmt.Errorf("no FLANNEL_MTU in %q", env)
}

// bridgeConfig is a CNI configuration: a bridge per node, addresses from the node's pod ranges.
func bridgeConfig(podCIDRs []string, mtu int) (string, error) {
	var ranges [][]object
	var routes []object
	for _, text := range podCIDRs {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return "", err
		}
		ranges = append(ranges, []object{{"subnet": prefix}})
		routes = append(routes, object{"dst": anywhere(prefix.Addr())})
	}
	return marshal(object{"cniVersion": "1.0.0", "name": "flannel", "plugins": []object{
		{"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "mtu": mtu,
			"ipam": object{"type": "host-local", "ranges": ranges, "routes": routes}},
		{"type": "portmap", "capabilities": object{"portMappings": true}},
	}})
}
