// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/cni/cnitest"
	"github.com/sealane/sealane/cni/conflist"
)

// TestLibcni takes the way of a runtime built with the library, such as containerd: from
// the conflist, in every version, to the plugin and back. It has a build tag because the
// library links OpenTelemetry, which go.mod does not list.
func TestLibcni(t *testing.T) {
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			l := newLab(t)
			l.start(t)
			runtime := libcni.NewCNIConfigWithCacheDir([]string{l.bin}, filepath.Join(l.dir, "cache"), nil)
			network := l.conflist(t, version)
			pod := &libcni.RuntimeConf{
				ContainerID: "c1", NetNS: "/run/netns/c1", IfName: "eth0",
				Args: [][2]string{
					{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", "web"}, {"K8S_POD_UID", "u"},
				},
				CapabilityArgs: map[string]any{"portMappings": []any{map[string]any{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}}},
			}
			added, err := runtime.AddNetworkList(t.Context(), network, pod)
			if err != nil {
				t.Fatal(err)
			}
			if added.Version() != version {
				t.Errorf("result is of version %s", added.Version())
			}
			got, err := types100.NewResultFromResult(added)
			if err != nil {
				t.Fatal(err)
			}
			want := cnitest.Result(l.handler.Attachments()[0], 1)
			if version < "1" { // older results have no MTU
				want.Interfaces[0].Mtu, want.Interfaces[1].Mtu = 0, 0
			}
			if diff := cmp.Diff(text(t, want), text(t, got)); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
			if version >= "0.4" {
				if err := runtime.CheckNetworkList(t.Context(), network, pod); err != nil {
					t.Errorf("check: %v", err)
				}
			}
			if version >= "1.1" {
				if err := runtime.GetStatusNetworkList(t.Context(), network); err != nil {
					t.Errorf("status: %v", err)
				}
				keep := []types.GCAttachment{{ContainerID: "c1", IfName: "eth0"}}
				if err := runtime.GCNetworkList(t.Context(), network, &libcni.GCArgs{ValidAttachments: keep}); err != nil {
					t.Errorf("gc: %v", err)
				}
				if len(l.handler.Attachments()) != 1 {
					t.Error("GC took a valid attachment")
				}
			}
			for range 2 {
				if err := runtime.DelNetworkList(t.Context(), network, pod); err != nil {
					t.Errorf("del: %v", err)
				}
			}
			if left := l.handler.Attachments(); len(left) != 0 {
				t.Errorf("DEL left %v", left)
			}
			calls := l.portmapCalls(t)
			if first, last := calls[0], calls[len(calls)-1]; first.Command != "ADD" || last.Command != "DEL" || len(first.Conf.RuntimeConfig.PortMappings) != 1 {
				t.Errorf("portmap was called with %+v; want an ADD with the port first, and a DEL last", calls)
			}
		})
	}
}

// conflist returns the list as the library reads it, in one version.
func (l *lab) conflist(t *testing.T, version string) *libcni.NetworkConfigList {
	t.Helper()
	data := conflist.Encode(conflist.Options{Socket: l.socket, QueueDir: l.queue})
	var list map[string]any
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	list["cniVersion"] = version
	data, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := libcni.NetworkConfFromBytes(data)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}
