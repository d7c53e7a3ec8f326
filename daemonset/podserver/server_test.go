// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package podserver

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/cni/ipam"
	"github.com/sealane/sealane/cni/podnet"
	"github.com/sealane/sealane/daemonset/enforce"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/readiness"
	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/internal/nl"
)

// noEndpoints is a data path that lets everything be.
type noEndpoints struct{}

func (noEndpoints) AttachPod(bpf.Device) error                 { return nil }
func (noEndpoints) Detach(bpf.Device) error                    { return nil }
func (noEndpoints) SetEndpoint(netip.Addr, bpf.Endpoint) error { return nil }
func (noEndpoints) DeleteEndpoint(netip.Addr) error            { return nil }

// noPolicies enforces nothing.
type noPolicies struct{}

func (noPolicies) Attach(context.Context, cni.PodRef, []netip.Addr) error { return nil }
func (noPolicies) Detach([]netip.Addr)                                    {}
func (noPolicies) Restore([]enforce.Attachment)                           {}

// lodge is a node's pods, of which one is connected, over a kernel that is real.
type lodge struct {
	*Server
	t    *testing.T
	host *nettest.NS
	now  time.Time
	pod  cni.Attachment
}

// newLodge connects a static pod: its UID is none that the API server knows.
func newLodge(t *testing.T) *lodge {
	t.Helper()
	host := nettest.NewNS(t)
	l := &lodge{t: t, host: host, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	leases, err := ipam.Open(t.TempDir(), []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")}, ipam.Options{
		Clock: func() time.Time { return l.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	state := readiness.New()
	state.SetMTU(1420)
	l.Server = New(Config{
		Leases: leases, Links: host.Handle(), Datapath: noEndpoints{}, Enforcer: noPolicies{}, State: state, Logger: slog.New(slog.DiscardHandler),
	})
	l.pod = cni.Attachment{
		ContainerID: "c1", IfName: "eth0", Netns: nettest.NewNS(t).Path, Network: "sealane",
		Pod: cni.PodRef{Namespace: "shop", Name: "web-n1", UID: "hash"},
	}
	if l.pod.Prev, err = l.Add(t.Context(), l.pod); err != nil {
		t.Fatal(err)
	}
	return l
}

// wantConnected fails unless the pod has its lease and its network, or neither.
func (l *lodge) wantConnected(want bool) {
	l.t.Helper()
	_, leased := l.leases.Lease(ownerOf(l.pod))
	if err := l.Check(l.t.Context(), l.pod); (err == nil) != want || leased != want {
		l.t.Errorf("leased: %t, check: %v, want connected: %t", leased, err, want)
	}
}

func TestPrivilegedRepairBelievesNoSingleView(t *testing.T) {
	l := newLodge(t)
	mirror := func(uid string) []kube.Pod { return []kube.Pod{{Namespace: "shop", Name: "web-n1", UID: uid}} }
	l.now = l.now.Add(time.Hour)
	l.Repair(mirror("mirror-1"))
	l.Repair(nil) // the mirror is deleted, and created again
	l.wantConnected(true)
	l.now = l.now.Add(ipam.DefaultGrace)
	l.Repair(mirror("mirror-2"))
	l.Repair(nil)
	l.wantConnected(true)
	l.now = l.now.Add(ipam.DefaultGrace - time.Second)
	l.Repair(nil)
	l.wantConnected(true)
	l.now = l.now.Add(time.Second)
	l.Repair(nil)
	l.wantConnected(false)
}

func TestPrivilegedRepairNeedsNoViewWithoutADevice(t *testing.T) {
	l := newLodge(t)
	l.now = l.now.Add(time.Hour)
	if err := l.links.DeleteLink(podnet.HostName(ownerOf(l.pod))); err != nil {
		t.Fatal(err)
	}
	l.Repair([]kube.Pod{{Namespace: "shop", Name: "web-n1"}})
	l.wantConnected(false)
}

func TestPrivilegedGCBelievesTheRuntimeAtOnce(t *testing.T) {
	l := newLodge(t)
	l.now = l.now.Add(time.Hour)
	if err := l.GC(t.Context(), "sealane", nil); err != nil {
		t.Fatal(err)
	}
	l.wantConnected(false)
}

func TestPrivilegedCheckGoesByTheResult(t *testing.T) {
	l := newLodge(t)
	l.state.SetMTU(1400) // of pods to come
	l.wantConnected(true)
	l.state = readiness.New(readiness.Network) // not ready
	l.wantConnected(true)
	told := l.pod.Prev
	l.pod.Prev = nil // or of a version that has no MTU
	l.wantConnected(true)
	l.pod.Prev = told
	l.pod.Prev.Interfaces[1].Mtu = 1300
	if err := l.Check(t.Context(), l.pod); err == nil {
		t.Error("the device has another MTU than the result")
	}
}

// deleting is a data path that a DEL overtakes.
type deleting struct {
	noEndpoints
	links *nl.Handle
}

func (d deleting) AttachPod(dev bpf.Device) error {
	if err := d.links.DeleteLink(dev.Name); err != nil {
		return err
	}
	return d.links.AttachClsact(dev.Index, nl.Ingress, 0, "none")
}

func TestPrivilegedRestoreIsOvertakenByADel(t *testing.T) {
	l := newLodge(t)
	l.datapath = deleting{links: l.links}
	for range 2 { // the second finds no device
		if err := l.Restore(); err != nil {
			t.Error(err)
		}
	}
}

// failing is a data path that finds no program, or the kernel no way to attach it.
type failing struct{ noEndpoints }

func (failing) AttachPod(bpf.Device) error { return nl.ErrNotFound }

func TestPrivilegedRestoreFailsWhereThereIsADevice(t *testing.T) {
	l := newLodge(t)
	l.datapath = failing{}
	if err := l.Restore(); err == nil {
		t.Error("a pod without programs is no error")
	}
}
