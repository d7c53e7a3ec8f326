// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sealane/sealane/test/lab/internal/machine"
	"github.com/sealane/sealane/test/lab/internal/plan"
)

// startCNI starts flannel and waits for the nodes and their DNS, or does nothing where the caller brings a CNI.
func (l *Lab) startCNI(ctx context.Context, o plan.Options, nodes []plan.Node) error {
	if o.CNI != plan.Flannel {
		return nil
	}
	a, err := l.connect(o)
	if err != nil {
		return err
	}
	if err := forEach(ctx, nodes, func(ctx context.Context, n plan.Node) error { return l.joinFlannel(ctx, o, n, a) }); err != nil {
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
func (l *Lab) joinFlannel(ctx context.Context, o plan.Options, n plan.Node, a *api) error {
	s, err := a.registered(ctx, o, n.Name)
	if err != nil {
		return err
	}
	if err := l.start(ctx, o, n, plan.Flannel); err != nil {
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
			mtu, err = plan.FlannelMTU(string(text))
		}
		return err
	})
	if err != nil {
		return err
	}
	config, err := plan.BridgeConfig(s.Spec.PodCIDRs, mtu)
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
