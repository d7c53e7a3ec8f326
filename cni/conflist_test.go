// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni_test

import (
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/cni/cnitest"
)

const defaultConflist = `{
  "cniVersion": "1.1.0",
  "name": "sealane",
  "plugins": [
    {
      "type": "sealane-cni"
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      },
      "snat": true
    }
  ]
}
`

func TestConflist(t *testing.T) {
	if diff := cmp.Diff(defaultConflist, string(cni.Conflist(cni.ConflistOptions{}))); diff != "" {
		t.Errorf("conflist (-want +got):\n%s", diff)
	}
	same := cni.ConflistOptions{Socket: cni.DefaultSocket, QueueDir: cni.DefaultQueueDir}
	if diff := cmp.Diff(defaultConflist, string(cni.Conflist(same))); diff != "" {
		t.Errorf("conflist with the defaults (-want +got):\n%s", diff)
	}
	other := cni.Conflist(cni.ConflistOptions{Socket: "/run/x.sock", QueueDir: "/var/x", PortMapBackend: "nftables"})
	var list struct{ Plugins []map[string]any }
	if err := json.Unmarshal(other, &list); err != nil {
		t.Fatal(err)
	}
	want := []map[string]any{
		{"type": "sealane-cni", "socket": "/run/x.sock", "delQueueDir": "/var/x"},
		{"type": "portmap", "capabilities": map[string]any{"portMappings": true}, "snat": true, "backend": "nftables"},
	}
	if diff := cmp.Diff(want, list.Plugins); diff != "" {
		t.Errorf("plugins (-want +got):\n%s", diff)
	}
}

func TestWriteConflistTouchesTheFileOnlyToChangeIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "net.d", "05-sealane.conflist")
	if err := cni.RemoveConflist(path); err != nil {
		t.Errorf("remove what is not there: %v", err)
	}
	inode := func() os.FileInfo {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	write := func(o cni.ConflistOptions) {
		t.Helper()
		if err := cni.WriteConflist(path, o); err != nil {
			t.Fatal(err)
		}
	}
	write(cni.ConflistOptions{})
	first := inode()
	if first.Mode().Perm() != 0o644 {
		t.Errorf("mode = %v, want 0644", first.Mode())
	}
	write(cni.ConflistOptions{})
	if !os.SameFile(first, inode()) {
		t.Error("the same content was written again")
	}
	write(cni.ConflistOptions{PortMapBackend: "iptables"})
	if os.SameFile(first, inode()) {
		t.Error("a change was not written")
	}
	if err := cni.RemoveConflist(path); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("file is still there: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cni.WriteConflist(filepath.Join(file, "x"), cni.ConflistOptions{}); err == nil {
		t.Error("written below a file")
	}
}

func TestNewResultIsWhatPortmapNeeds(t *testing.T) {
	r := cnitest.Result(cni.Attachment{IfName: "eth0", Netns: "/run/netns/1"}, 1)
	want := addrs("10.244.1.2", "fd00:0:0:1::2")
	if diff := cmp.Diff(want, cni.Addresses(r), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	for i, ip := range r.IPs {
		// The portmap plugin takes addresses of the device with the name of
		// CNI_IFNAME that is in a sandbox.
		if device := r.Interfaces[*ip.Interface]; device.Name != "eth0" || device.Sandbox != "/run/netns/1" {
			t.Errorf("address %v is on %+v", ip.Address, device)
		}
		if ones, bits := ip.Address.Mask.Size(); ones != bits || bits != want[i].BitLen() {
			t.Errorf("address %v is no host address", ip.Address)
		}
		if r.Routes[i].GW.Equal(net.IPv4zero) || !r.Routes[i].GW.Equal(ip.Gateway) || !r.Routes[i].Dst.IP.IsUnspecified() {
			t.Errorf("route %v, gateway %v", r.Routes[i], ip.Gateway)
		}
	}
	if cni.Addresses(nil) != nil {
		t.Error("no result has addresses")
	}
}

func addrs(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}
