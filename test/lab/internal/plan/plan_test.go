// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package plan

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func options(f Families) Options {
	return Options{Nodes: 3, Families: f, Proxy: "nftables", CNI: "none", MTU: 1500}
}

// render is everything that is decided for a cluster and two of its nodes, as text.
func render(t *testing.T, o Options) string {
	t.Helper()
	var text strings.Builder
	section := func(title string, lines ...string) {
		fmt.Fprintf(&text, "== %s\n%s\n\n", title, strings.TrimSpace(strings.Join(lines, "\n")))
	}
	section("wire", o.WireCommands()...)
	for _, n := range []Node{{"n1", 1}, {"n2", 2}} {
		section(n.Name+" cable", o.CableCommands(n, 77)...)
		section(n.Name+" network", o.NodeCommands(n)...)
		for _, daemon := range o.Daemons(n) {
			args, err := o.Arguments(daemon, n)
			if err != nil {
				t.Fatal(err)
			}
			section(n.Name+" "+daemon, args...)
		}
	}
	configs := map[string]func() (string, error){"kubelet": o.KubeletConfig, "kube-proxy": o.ProxyConfig, "flannel": o.FlannelConfig}
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		config, err := configs[name]()
		if err != nil {
			t.Fatal(err)
		}
		section("configuration of "+name, config)
	}
	section("kubeadm", o.kubeadmConfig())
	section("API server's addresses", Join(o.APIServerLeaf().IPs))
	return text.String()
}

func TestGolden(t *testing.T) {
	single := options(IPv6)
	single.Proxy, single.MTU = "none", 9000
	rival := options(Dual)
	rival.Proxy, rival.CNI = "iptables", "flannel"
	for name, o := range map[string]Options{"ipv4": options(IPv4), "ipv6-noproxy-jumbo": single, "dual-iptables-flannel": rival} {
		t.Run(name, func(t *testing.T) {
			got, file := render(t, o), filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	if err := options(Dual).Validate(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*Options){
		"no node":     func(o *Options) { o.Nodes = 0 },
		"six nodes":   func(o *Options) { o.Nodes = 6 },
		"no family":   func(o *Options) { o.Families = "" },
		"proxy":       func(o *Options) { o.Proxy = "ipvs" },
		"CNI":         func(o *Options) { o.CNI = "calico" },
		"small MTU":   func(o *Options) { o.MTU = 1279 },
		"too big MTU": func(o *Options) { o.MTU = 65536 },
	} {
		o := options(IPv4)
		spoil(&o)
		if err := o.Validate(); !errors.Is(err, ErrOption) {
			t.Errorf("%s: got %v, want %v", name, err, ErrOption)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"n1", "worker-9", "a", "abcdefghijklmno"} {
		if err := CheckName(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", "N1", "1n", "-n", "n-", "..", "a/b", "abcdefghijklmnop", "br0", "lo", "wire", "a b"} {
		if err := CheckName(name); !errors.Is(err, ErrOption) {
			t.Errorf("%q: got %v, want %v", name, err, ErrOption)
		}
	}
}

func TestNextIndex(t *testing.T) {
	tests := map[string]struct {
		have []int
		want int
	}{
		"none": {nil, 1}, "row": {[]int{1, 2, 3}, 4}, "gap": {[]int{1, 3}, 2},
	}
	for name, tt := range tests {
		var nodes []Node
		for _, i := range tt.have {
			nodes = append(nodes, Node{Index: i})
		}
		if got, ok := NextIndex(nodes); got != tt.want || !ok {
			t.Errorf("%s: got %d %t, want %d", name, got, ok, tt.want)
		}
	}
	var all []Node
	for i := 1; firstNode+i < wireHost; i++ {
		all = append(all, Node{Index: i})
	}
	if got, ok := NextIndex(all); ok {
		t.Errorf("a full network has room for %d", got)
	}
}

// Two nodes, or a node and the wire, must never have the same address.
func TestAddressesDiffer(t *testing.T) {
	seen := map[string]int{}
	for i := 1; firstNode+i <= wireHost; i++ {
		for _, addr := range Dual.NodeAddresses(i) {
			if other, ok := seen[addr.String()]; ok {
				t.Fatalf("nodes %d and %d: %s", other, i, addr)
			}
			seen[addr.String()] = i
		}
	}
}

func TestArgumentsUnknown(t *testing.T) {
	if _, err := options(IPv4).Arguments("dockerd", Node{"n1", 1}); !errors.Is(err, ErrDaemon) {
		t.Errorf("got %v, want %v", err, ErrDaemon)
	}
}

func TestTargetsCoverThePath(t *testing.T) {
	o := options(IPv4)
	path, err := o.SearchPath()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"/opt/lab/kubernetes-v", "/opt/lab/runc-v", ":/usr/bin:"} {
		if !strings.Contains(path, want) {
			t.Errorf("no %s in %s", want, path)
		}
	}
	if strings.Contains(path, "flannel") {
		t.Errorf("flannel, unasked: %s", path)
	}
}

func TestManifest(t *testing.T) {
	text, err := options(Dual).Manifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\n  ClusterConfiguration: |\n    apiVersion: kubeadm.k8s.io/v1beta4\n",
		"\n      podSubnet: 10.244.0.0/16,fd00:244::/56\n",
		"\n  clusterIP: \"10.96.0.10\"\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestBridgeConfig(t *testing.T) {
	text, err := BridgeConfig([]string{"10.244.1.0/24", "fd00:244:0:1::/64"}, 1450)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Plugins []struct {
			Type string
			MTU  int
			IPAM struct {
				Ranges [][]map[string]string
				Routes []map[string]string
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	bridge := got.Plugins[0]
	if bridge.Type != "bridge" || bridge.MTU != 1450 || got.Plugins[1].Type != "portmap" {
		t.Errorf("got %+v", got)
	}
	if diff := cmp.Diff([][]map[string]string{{{"subnet": "10.244.1.0/24"}}, {{"subnet": "fd00:244:0:1::/64"}}}, bridge.IPAM.Ranges); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]map[string]string{{"dst": "0.0.0.0/0"}, {"dst": "::/0"}}, bridge.IPAM.Routes); diff != "" {
		t.Error(diff)
	}
	if _, err := BridgeConfig([]string{"nonsense"}, 1450); err == nil {
		t.Error("nonsense: no error")
	}
}

func TestFlannelMTU(t *testing.T) {
	if got, err := FlannelMTU("FLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"); got != 1450 || err != nil {
		t.Errorf("got %d %v", got, err)
	}
	for _, text := range []string{"", "FLANNEL_MTU=\n", "FLANNEL_MTU=x\n"} {
		if got, err := FlannelMTU(text); err == nil {
			t.Errorf("%q: got %d", text, got)
		}
	}
}
