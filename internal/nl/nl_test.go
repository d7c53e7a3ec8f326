// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package nl_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/internal/nl"
)

var comparers = cmp.Options{
	cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}),
}

func TestOpenAtWhatIsNoNamespace(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{plain, plain + ".gone", plain + "/below", ""} {
		if h, err := nl.OpenAt(path); !errors.Is(err, nl.ErrNotFound) {
			t.Errorf("OpenAt(%q) = %v, %v; want ErrNotFound", path, h, err)
		}
	}
}

func TestPrivilegedOpenIsTheCallersNamespace(t *testing.T) {
	nettest.Privileged(t)
	ns := nettest.NewNS(t)
	want, err := ns.Handle().Identity()
	if err != nil {
		t.Fatal(err)
	}
	var got uint64
	ns.Do(func() {
		h, openErr := nl.Open()
		if openErr != nil {
			err = openErr
			return
		}
		got, err = h.Identity()
		err = errors.Join(err, h.Close())
	})
	if err != nil || got != want {
		t.Errorf("identity = %d, %v; want %d", got, err, want)
	}
}

func TestPrivilegedVeth(t *testing.T) {
	nettest.Privileged(t)
	host, pod := nettest.NewNS(t), nettest.NewNS(t)
	h := host.Handle()
	hostMAC, podMAC := net.HardwareAddr{0xee, 0xee, 0xee, 0x5e, 0xa1, 1}, net.HardwareAddr{0x0a, 0x58, 10, 0, 0, 1}
	v := nl.Veth{
		Name: "slp0", MAC: hostMAC, Alias: "ns/pod", Group: 0x5ea1, MTU: 1400,
		PeerName: "eth0", PeerMAC: podMAC, PeerNetns: pod.Path,
	}
	created, err := h.AddVeth(v)
	if err != nil {
		t.Fatal(err)
	}
	inPod, err := pod.Handle().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	want := nl.Link{
		Index: created.Index, Name: "slp0", Kind: "veth", Alias: "ns/pod", MTU: 1400,
		MAC: hostMAC, Group: 0x5ea1, PeerIndex: inPod.Index,
	}
	if diff := cmp.Diff(want, created); diff != "" {
		t.Errorf("host side (-want +got):\n%s", diff)
	}
	if byIndex, err := h.LinkByIndex(created.Index); err != nil || cmp.Diff(want, byIndex) != "" {
		t.Errorf("by index: %v, %v", byIndex, err)
	}
	if !bytes.Equal(inPod.MAC, podMAC) || inPod.MTU != 1400 || inPod.Up {
		t.Errorf("pod side = %+v", inPod)
	}
	if _, err := h.AddVeth(v); !errors.Is(err, nl.ErrExists) {
		t.Errorf("second AddVeth = %v, want ErrExists", err)
	}
	v.Name, v.PeerNetns = "slp1", pod.Path+"gone"
	if _, err := h.AddVeth(v); !errors.Is(err, nl.ErrNotFound) {
		t.Errorf("AddVeth into no namespace = %v, want ErrNotFound", err)
	}
	if _, err := h.LinkByName("slp1"); !errors.Is(err, nl.ErrNotFound) {
		t.Errorf("a failed AddVeth left a device: %v", err)
	}
	for range 2 {
		if err := h.DeleteLink("slp0"); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	if _, err := pod.Handle().LinkByName("eth0"); !errors.Is(err, nl.ErrNotFound) {
		t.Errorf("the pod's end is still there: %v", err)
	}
}

func TestPrivilegedSetLink(t *testing.T) {
	nettest.Privileged(t)
	ns := nettest.NewNS(t)
	h := ns.Handle()
	l, err := h.AddVeth(nl.Veth{Name: "a", PeerName: "b"})
	if err != nil {
		t.Fatal(err)
	}
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	if err := h.SetLink(l.Index, nl.LinkSettings{MTU: 1380, Alias: "x", Group: 7, MAC: mac, State: nl.Up}); err != nil {
		t.Fatal(err)
	}
	got, err := h.LinkByName("a")
	if err != nil {
		t.Fatal(err)
	}
	want := nl.Link{Index: l.Index, Name: "a", Kind: "veth", Alias: "x", MTU: 1380, Up: true, MAC: mac, Group: 7, PeerIndex: l.PeerIndex}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := h.SetLink(l.Index, nl.LinkSettings{}); err != nil {
		t.Error(err)
	}
	if again, err := h.LinkByName("a"); err != nil || cmp.Diff(want, again) != "" {
		t.Errorf("empty settings changed the device: %+v, %v", again, err)
	}
	if err := h.SetLink(l.Index, nl.LinkSettings{State: nl.Down}); err != nil {
		t.Error(err)
	}
	if err := h.SetLink(l.Index, nl.LinkSettings{Queue: 77}); err != nil {
		t.Fatal(err)
	}
	if shown := ns.Run("ip", "-o", "link", "show", "a"); !strings.Contains(shown, "qlen 77") {
		t.Errorf("want a queue of 77 packets: %s", shown)
	}
	if err := h.SetLink(99999, nl.LinkSettings{MTU: 1400}); !errors.Is(err, nl.ErrNotFound) {
		t.Errorf("SetLink of no device = %v, want ErrNotFound", err)
	}
	links, err := h.Links()
	if err != nil || len(links) != 3 {
		t.Errorf("Links = %v, %v; want lo, a, b", links, err)
	}
}

func TestPrivilegedDeleteGroup(t *testing.T) {
	nettest.Privileged(t)
	h := nettest.NewNS(t).Handle()
	const doomed = 7
	for name, group := range map[string]uint32{"a": doomed, "b": doomed, "c": 8, "d": 0} {
		if _, err := h.AddVeth(nl.Veth{Name: name, PeerName: name + "-peer", Group: group}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // none left is no error
		if err := h.DeleteGroup(doomed); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.DeleteGroup(0); !errors.Is(err, nl.ErrInvalid) {
		t.Errorf("the default group: %v, want ErrInvalid", err)
	}
	for name, want := range map[string]error{"a": nl.ErrNotFound, "a-peer": nl.ErrNotFound, "b": nl.ErrNotFound, "c": nil, "d": nil, "d-peer": nil} {
		if _, err := h.LinkByName(name); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

func TestPrivilegedVXLANIsExternal(t *testing.T) {
	nettest.Privileged(t)
	ns := nettest.NewNS(t)
	mac := net.HardwareAddr{0x0e, 0x5e, 0xa1, 0, 0, 1}
	if err := ns.Handle().AddVXLAN(nl.VXLAN{Name: "vx", MAC: mac, MTU: 1450, Port: 4789}); err != nil {
		t.Fatal(err)
	}
	out := ns.Run("ip", "-d", "link", "show", "vx")
	for _, want := range []string{"external", "dstport 4789", "NOARP", mac.String(), "mtu 1450", "nolearning"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestPrivilegedAddresses(t *testing.T) {
	nettest.Privileged(t)
	ns := nettest.NewNS(t)
	h := ns.Handle()
	l, err := h.AddVeth(nl.Veth{Name: "a", PeerName: "b"})
	if err != nil {
		t.Fatal(err)
	}
	want := []netip.Prefix{netip.MustParsePrefix("10.1.2.3/32"), netip.MustParsePrefix("fd00::3/128")}
	for range 2 {
		for _, p := range want {
			if err := h.EnsureAddress(l.Index, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, err := h.Addresses(l.Index)
	if err != nil || cmp.Diff(want, got, comparers) != "" {
		t.Errorf("addresses = %v, %v; want %v", got, err, want)
	}
	if out := ns.Run("ip", "-6", "addr", "show", "a"); !strings.Contains(out, "nodad") {
		t.Errorf("IPv6 address waits for duplicate address detection:\n%s", out)
	}
	for range 2 {
		for _, p := range want {
			if err := h.DeleteAddress(l.Index, p); err != nil {
				t.Errorf("delete %s: %v", p, err)
			}
		}
	}
	if got, err := h.Addresses(l.Index); err != nil || len(got) != 0 {
		t.Errorf("addresses after deletion = %v, %v", got, err)
	}
	if err := h.EnsureAddress(l.Index, netip.Prefix{}); !errors.Is(err, nl.ErrInvalid) {
		t.Errorf("no address = %v, want ErrInvalid", err)
	}
}

func TestPrivilegedNeighbors(t *testing.T) {
	nettest.Privileged(t)
	h := nettest.NewNS(t).Handle()
	l, err := h.AddVeth(nl.Veth{Name: "a", PeerName: "b"})
	if err == nil {
		err = h.SetLink(l.Index, nl.LinkSettings{State: nl.Up})
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []netip.Addr{netip.MustParseAddr("169.254.1.1"), netip.MustParseAddr("fe80::1")} {
		for _, mac := range []net.HardwareAddr{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}} {
			if err := h.EnsureNeighbor(l.Index, addr, mac); err != nil {
				t.Fatal(err)
			}
			got, err := h.Neighbors(l.Index)
			want := nl.Neighbor{Addr: addr, MAC: mac, Permanent: true}
			if err != nil || !slices.ContainsFunc(got, func(n nl.Neighbor) bool { return cmp.Equal(n, want, comparers) }) {
				t.Errorf("neighbours = %v, %v; want %v among them", got, err, want)
			}
		}
	}
}

func TestPrivilegedSysctl(t *testing.T) {
	nettest.Privileged(t)
	h := nettest.NewNS(t).Handle()
	outside, err := os.ReadFile("/proc/sys/net/ipv4/conf/lo/rp_filter")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false} {
		if changed, err := h.SetSysctl("net/ipv4/conf/lo/rp_filter", "2"); err != nil || changed != want {
			t.Errorf("write %d: changed = %v, %v", i, changed, err)
		}
	}
	if got, err := h.Sysctl("net/ipv4/conf/lo/rp_filter"); err != nil || got != "2" {
		t.Errorf("read back %q, %v", got, err)
	}
	if now, err := os.ReadFile("/proc/sys/net/ipv4/conf/lo/rp_filter"); err != nil || !bytes.Equal(now, outside) {
		t.Errorf("the write went to the wrong namespace: %q, %v", now, err)
	}
	if _, err := h.Sysctl("net/ipv4/conf/none/rp_filter"); !errors.Is(err, nl.ErrNotFound) {
		t.Errorf("unknown device = %v, want ErrNotFound", err)
	}
	for _, name := range []string{"kernel/hostname", "net/../kernel/hostname", "/net/x", "net.ipv4.ip_forward"} {
		if _, err := h.SetSysctl(name, "x"); !errors.Is(err, nl.ErrInvalid) {
			t.Errorf("SetSysctl(%q) = %v, want ErrInvalid", name, err)
		}
	}
}

func TestPrivilegedWatch(t *testing.T) {
	nettest.Privileged(t)
	h := nettest.NewNS(t).Handle()
	ctx, cancel := context.WithCancel(t.Context())
	changed, err := h.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	steps := []func() error{
		func() error { _, err := h.AddVeth(nl.Veth{Name: "a", PeerName: "b"}); return err },
		func() error {
			return h.ReplaceRoute(nl.Route{Dst: netip.MustParsePrefix("10.0.0.0/8"), Unreachable: true})
		},
		func() error {
			return h.AddRule(nl.Rule{Priority: 5, From: netip.MustParsePrefix("10.0.0.0/8"), Table: 5})
		},
	}
	for i, step := range steps {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
		case <-time.After(5 * time.Second):
			t.Fatalf("step %d was not reported", i)
		}
	}
	cancel()
	deadline := time.After(5 * time.Second)
	for open := true; open; {
		select {
		case _, open = <-changed:
		case <-deadline:
			t.Fatal("channel still open after the context ended")
		}
	}
}

func TestPrivilegedClsact(t *testing.T) {
	nettest.Privileged(t)
	ns := nettest.NewNS(t)
	h := ns.Handle()
	l, err := h.AddVeth(nl.Veth{Name: "a", PeerName: "b"})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []nl.Direction{nl.Ingress, nl.Egress} {
		if err := h.DetachClsact(l.Index, d); err != nil {
			t.Errorf("detach what never was: %v", err)
		}
		for _, name := range []string{"first", "second"} {
			if err := h.AttachClsact(l.Index, d, returnZero(t), name); err != nil {
				t.Fatal(err)
			}
			out := ns.Run("tc", "filter", "show", "dev", "a", d.String())
			if strings.Count(out, "direct-action") != 1 || !strings.Contains(out, name) {
				t.Errorf("want one filter called %s:\n%s", name, out)
			}
		}
	}
	for _, d := range []nl.Direction{nl.Ingress, nl.Egress} {
		for range 2 {
			if err := h.DetachClsact(l.Index, d); err != nil {
				t.Errorf("detach: %v", err)
			}
		}
	}
	if out := ns.Run("tc", "qdisc", "show", "dev", "a"); strings.Contains(out, "clsact") {
		t.Errorf("qdisc left behind:\n%s", out)
	}
}

// returnZero loads the tc program "return 0" by the bare system call, so that this
// package needs no library for it.
func returnZero(t *testing.T) int {
	t.Helper()
	insns := []uint64{0x00000000000000b7, 0x0000000000000095} // r0 = 0; exit
	licence := []byte("GPL\x00")
	attr := struct {
		progType, insnCnt uint32
		insns, license    uint64
		rest              [104]byte
	}{
		progType: unix.BPF_PROG_TYPE_SCHED_CLS, insnCnt: uint32(len(insns)),
		insns: uint64(uintptr(unsafe.Pointer(&insns[0]))), license: uint64(uintptr(unsafe.Pointer(&licence[0]))),
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		t.Fatalf("load program: %v", errno)
	}
	t.Cleanup(func() { _ = unix.Close(int(fd)) })
	return int(fd)
}
