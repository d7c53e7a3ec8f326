// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// everyTrace is a shell script that prints what Sealane keeps on a node.
const everyTrace = `
ip -o link | grep -E ': (slp|sealane)' | cut -d: -f2
ip route show table all | grep -E 'proto (94|95)'
ip -6 route show table all | grep -E 'proto (94|95)'
ip rule | grep 5154
ip -6 rule | grep 5154
nft list tables | grep sealane
ls -d /sys/fs/bpf/sealane /var/lib/sealane /run/sealane /etc/cni/net.d/05-sealane.conflist /opt/cni/bin/sealane-cni /opt/cni/bin/sealane-portmap 2>/dev/null
ls /var/run/wireguard 2>/dev/null
bpftool net show dev eth0 2>/dev/null | grep uplink
true`

// TestUninstallLeavesNothing follows the README's way to uninstall. It ends the
// cluster's network, so that it runs last, and only when asked for.
func TestUninstallLeavesNothing(t *testing.T) {
	if os.Getenv("SEALANE_E2E_UNINSTALL") != "1" {
		t.Skip("runs last, on its own: test/e2e/run sets SEALANE_E2E_UNINSTALL=1")
	}
	all := nodes(t)
	for _, n := range all {
		if strings.TrimSpace(onNode(t, n, everyTrace)) == "" {
			t.Fatalf("node %s shows no trace of a network that runs: the test proves nothing", n)
		}
	}
	manifest := func(name string) string {
		data, err := os.ReadFile(filepath.Join(root(), "dist", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	kubectlIn := func(stdin string, args ...string) {
		if _, err := lab(t.Context(), stdin, append([]string{"kubectl"}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	kubectlIn(manifest("sealane.yaml"), "delete", "-f", "-", "--ignore-not-found", "--timeout=120s")
	kubectlIn(manifest("sealane-uninstall.yaml"), "apply", "-f", "-")
	kubectl(t, "-n", "sealane-uninstall", "rollout", "status", "daemonset/sealane-uninstall", "--timeout=120s")
	for _, n := range all {
		if left := strings.TrimSpace(onNode(t, n, everyTrace)); left != "" {
			t.Errorf("left on node %s:\n%s", n, left)
		}
	}
	kubectlIn(manifest("sealane-uninstall.yaml"), "delete", "-f", "-", "--timeout=60s")
}
