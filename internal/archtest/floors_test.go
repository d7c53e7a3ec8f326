// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package archtest

import (
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

// floors lists the packages from the ground up. A package may import only
// packages of lower floors.
var floors = []struct {
	verb     string
	packages []string
}{
	{"stand on", []string{"internal/atomicfile", "internal/backoff", "internal/ipproto", "internal/canonical", "internal/coredump", "internal/crowd", "internal/times", "internal/keylock", "internal/nl", "internal/signal", "internal/unixsocket", "overlay/backend", "daemonset/status/words", "api/v1alpha1", "cni/hostport", "bpf/words"}},
	{"measure", []string{"keymgr/extension", "keymgr/nodenet"}},
	{"know", []string{"internal/httpserver", "perf/scale/internal/sim", "daemonset/kube/internal/conn", "keymgr", "keymgr/renewal", "keymgr/rotation", "policy", "overlay/service", "cni", "cni/ipam"}},
	{"judge", []string{"policy/compile", "policy/oracle"}},
	{"approve", []string{"keymgr/approval", "keymgr/bundle", "keymgr/rootchange", "keymgr/ca/internal/template"}},
	{"vouch", []string{"daemonset/kube/internal/informer", "keymgr/ca", "keymgr/identity", "keymgr/markstore", "keymgr/pairing", "keymgr/revocation"}},
	{"reach", []string{"daemonset/kube", "keymgr/ca/memorystore"}},
	{"plan", []string{"daemonset/kube/cluster", "overlay", "overlay/wireguard/process", "bpf/pinned", "cni/conflist", "cni/podnet", "internal/nettest", "daemonset/status", "daemonset/readiness", "perf/netnsexec", "perf/scale/internal/price", "perf/scale/internal/wire"}},
	{"do", []string{"bpf", "daemonset/kube/objects", "overlay/wireguard", "overlay/wireguard/userspace", "overlay/vxlan", "overlay/hostnet", "daemonset/metrics", "perf/limit"}},
	{"drive", []string{"daemonset/rotate", "daemonset/enforce", "daemonset/observe", "daemonset/checkpoint", "daemonset/trust", "controller/authority", "controller/signer", "controller/revocation"}},
	{"follow", []string{"daemonset/podserver", "daemonset/network"}},
	{"report", []string{"daemonset/report"}},
	{"run", []string{"daemonset/agent", "controller", "perf", "perf/scale"}},
	{"ask", []string{"cmd/sealane/internal/agents", "cmd/sealane/internal/cli", "daemonset/status/text"}},
	{"answer", []string{
		"cmd/sealane/internal/cacmd", "cmd/sealane/internal/policycmd", "cmd/sealane/internal/revoke",
		"cmd/sealane/internal/rotate", "cmd/sealane/internal/statuscmd",
	}},
	{"start", []string{
		"cmd/sealane", "cmd/sealane-cni", "cmd/sealane-controller", "cmd/sealane-wireguard", "cmd/sealaned",
		"daemonset/deploy", "internal/archtest", "internal/imagebuild",
	}},
}

// doors lists the libraries that only a few packages may touch, so that the
// rest of the code neither depends on their types nor repeats their traps.
var doors = map[string][]string{
	"k8s.io/client-go": {
		"daemonset/kube", "daemonset/kube/cluster", "daemonset/kube/objects",
		"daemonset/kube/internal/conn", "daemonset/kube/internal/conntest", "daemonset/kube/internal/informer",
	},
	"github.com/cilium/ebpf":                   {"bpf", "bpf/pinned"},
	"github.com/vishvananda/":                  {"internal/nl", "internal/nettest"},
	"golang.zx2c4.com/wireguard":               {"overlay/wireguard", "overlay/wireguard/userspace"},
	"sigs.k8s.io/knftables":                    {"overlay/hostnet"},
	"github.com/containernetworking/plugins":   {"cni/podnet", "internal/nl", "internal/nettest"},
	"github.com/spf13/cobra":                   {"cmd/sealane", "cmd/sealane/internal/cli", "cmd/sealane/internal/cacmd", "cmd/sealane/internal/policycmd", "cmd/sealane/internal/revoke", "cmd/sealane/internal/rotate", "cmd/sealane/internal/statuscmd"},
	"github.com/google/go-containerregistry":   {"internal/imagebuild"},
	"k8s.io/kubernetes":                        {},
	"github.com/stretchr/testify":              {},
	"github.com/sirupsen/logrus":               {},
	"github.com/sealane/sealane/internal/deps": {},
}

// unlinked lists what must not get into a program, by no detour: the plugin
// starts for every pod, and the WireGuard process must outlive every reason to
// upgrade the rest.
var unlinked = map[string][]string{
	"cmd/sealane-cni": {
		"k8s.io/", "github.com/cilium/ebpf", "github.com/vishvananda/", "github.com/prometheus/", "golang.zx2c4.com/",
		module + "daemonset", module + "controller", module + "overlay", module + "bpf", module + "internal/nl",
	},
	"cmd/sealane-wireguard":  {"k8s.io/", "github.com/cilium/ebpf", module + "daemonset", module + "controller", module + "bpf"},
	"cmd/sealane-controller": {"github.com/cilium/ebpf", "golang.zx2c4.com/", module + "overlay", module + "bpf", module + "internal/nl"},
}

// testSupport tells whether the package exists for tests alone, such as a fake
// beside the interface that it fakes: its name ends in test.
func testSupport(pkg string) bool {
	name, found := strings.CutSuffix(path.Base(pkg), "test")
	return found && name != "" && name != "arch"
}

// workshop tells whether the package builds, tests or demonstrates the product
// and is no part of it.
func workshop(pkg string) bool { return pkg == "test" || strings.HasPrefix(pkg, "test/") }

func floorOf(pkg string) (int, bool) {
	for i, f := range floors {
		if slices.Contains(f.packages, pkg) {
			return i, true
		}
	}
	return 0, false
}

func TestFloors(t *testing.T) {
	for _, s := range sources(t, product) {
		if workshop(s.pkg) || (testSupport(s.pkg) && s.pkg != "internal/nettest") {
			continue
		}
		mine, ok := floorOf(s.pkg)
		if !ok {
			t.Errorf("%s stands on no floor; add it to the floor table", s.pkg)
			continue
		}
		for _, imp := range s.imports() {
			dep, ours := strings.CutPrefix(imp, module)
			if theirs, known := floorOf(dep); ours && known && theirs >= mine {
				t.Errorf("%s (floor %d, %s) imports %s (floor %d, %s)",
					s.path, mine, floors[mine].verb, dep, theirs, floors[theirs].verb)
			}
		}
	}
}

func TestDoors(t *testing.T) {
	for _, s := range sources(t, product) {
		for _, imp := range s.imports() {
			for lib, users := range doors {
				if within(imp, lib) && !slices.Contains(users, s.pkg) && !workshop(s.pkg) {
					t.Errorf("%s imports %s; only %v may", s.path, imp, users)
				}
			}
		}
	}
}

// TestTestSupport keeps fakes and test helpers out of the programs.
func TestTestSupport(t *testing.T) {
	for _, s := range sources(t, product) {
		if testSupport(s.pkg) || workshop(s.pkg) {
			continue
		}
		for _, imp := range s.imports() {
			dep, ours := strings.CutPrefix(imp, module)
			if imp == "testing" || ours && testSupport(dep) {
				t.Errorf("%s imports %s, which is for tests only", s.path, imp)
			}
		}
	}
}

func TestPrograms(t *testing.T) {
	graph := map[string][]string{}
	for _, s := range sources(t, product) {
		graph[module+s.pkg] = append(graph[module+s.pkg], s.imports()...)
	}
	for program, forbidden := range unlinked {
		for _, imp := range slices.Sorted(maps.Keys(reach(graph, module+program))) {
			for _, lib := range forbidden {
				if within(imp, lib) {
					t.Errorf("%s links %s (%s)", program, imp, reach(graph, module+program)[imp])
				}
			}
		}
	}
}

// reach returns everything that is imported from start on through packages of
// ours, each with the package that imports it.
func reach(graph map[string][]string, start string) map[string]string {
	found := map[string]string{}
	queue := []string{start}
	for len(queue) > 0 {
		pkg := queue[0]
		queue = queue[1:]
		for _, imp := range graph[pkg] {
			if _, seen := found[imp]; !seen {
				found[imp] = "by " + strings.TrimPrefix(pkg, module)
				queue = append(queue, imp)
			}
		}
	}
	return found
}

// within tells whether imp is lib or below it; a lib that ends in a slash is a prefix.
func within(imp, lib string) bool {
	return imp == lib || strings.HasPrefix(imp, strings.TrimSuffix(lib, "/")+"/")
}
