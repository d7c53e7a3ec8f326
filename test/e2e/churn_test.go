// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// traces is a shell script that prints what a node holds of pods: devices,
// leases in use, routes, entries and pins of the data path.
const traces = `
echo "devices $(ip -o link | grep -c ': slp')"
echo "leases $(grep -L '"released"' /var/lib/sealane/ipam/*.json 2>/dev/null | wc -l)"
echo "routes $(ip route; ip -6 route) " | grep -c 'dev slp' | sed 's/^/routes /'
echo "links $(ls /sys/fs/bpf/sealane/links | grep -c "^slp")"
echo "endpoints $(bpftool map dump pinned /sys/fs/bpf/sealane/v*/sl_endpoints -j | jq length)"
echo "queued $(ls /var/lib/sealane/cni-del 2>/dev/null | wc -l)"
`

// quietTraces gives the traces of a node once it holds those of its pods alone: a
// DEL of an earlier test may have been queued.
func quietTraces(t testing.TB, node string) (found string) {
	t.Helper()
	eventually(t, 2*time.Minute, "traces of the pods alone on "+node, func() error {
		hosts := kubectl(t, "get", "pods", "-A", "--field-selector", "spec.nodeName="+node, "-o", `jsonpath={range .items[*]}{.spec.hostNetwork}{"\n"}{end}`)
		pods := strings.Count(hosts, "\n") - strings.Count(hosts, "true")
		found = onNode(t, node, traces)
		if want := fmt.Sprintf("devices %d\n", pods); !strings.HasPrefix(found, want) || !strings.HasSuffix(found, "queued 0\n") {
			return fmt.Errorf("%d pods, and\n%s", pods, found)
		}
		return nil
	})
	return found
}

func TestChurnLeavesNothing(t *testing.T) {
	all := nodes(t)
	before := map[string]string{}
	for _, n := range all {
		before[n] = quietTraces(t, n)
	}
	total := setting("SEALANE_E2E_PODS", 200)
	ns := namespace(t, "e2e-churn")
	for first := 0; first < total; first += 40 {
		var manifest strings.Builder
		batch := min(40, total-first)
		for i := range batch {
			p := pod{Name: fmt.Sprintf("c%d", first+i), Node: all[i%len(all)], Args: "[pause]"}
			manifest.WriteString(p.manifest(ns))
		}
		apply(t, manifest.String())
		eventually(t, 2*time.Minute, "pods run", func() error {
			out := kubectl(t, "-n", ns, "get", "pods", "-o", `jsonpath={range .items[*]}{.status.phase}{" "}{.status.podIP}{"\n"}{end}`)
			seen := map[string]bool{}
			for line := range strings.Lines(out) {
				phase, ip, _ := strings.Cut(strings.TrimSpace(line), " ")
				if phase != "Running" || ip == "" {
					return fmt.Errorf("a pod is %s with address %q", phase, ip)
				}
				if seen[ip] {
					t.Fatalf("address %s was given to two pods", ip)
				}
				seen[ip] = true
			}
			if len(seen) != batch {
				return fmt.Errorf("%d of %d pods", len(seen), batch)
			}
			return nil
		})
		kubectl(t, "-n", ns, "delete", "pods", "--all", "--grace-period=0", "--force")
		eventually(t, 2*time.Minute, "pods gone", func() error {
			if out := kubectl(t, "-n", ns, "get", "pods", "-o", "name"); strings.TrimSpace(out) != "" {
				return fmt.Errorf("still there: %s", out)
			}
			return nil
		})
	}
	for _, n := range all {
		eventually(t, time.Minute, "node "+n+" is as before", func() error {
			if after := onNode(t, n, traces); after != before[n] {
				return fmt.Errorf("before:\n%safter:\n%s", before[n], after)
			}
			return nil
		})
	}
}
