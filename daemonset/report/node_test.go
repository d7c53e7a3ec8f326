// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package report

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/cni/ipam"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/network"
	"github.com/sealane/sealane/daemonset/readiness"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/daemonset/trust"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/overlay/backend"
	"github.com/sealane/sealane/overlay/hostnet"
)

// events keeps what would have been told to the operator.
type events []kube.EventSpec

func (e *events) Event(_ context.Context, s kube.EventSpec) { *e = append(*e, s) }

// fixture is a node whose sources are all set by hand.
type fixture struct {
	counters bpf.Counters
	leak     *bpf.Leak
	view     *network.View
	states   []overlay.TunnelState
}

func (f *fixture) Counters() (bpf.Counters, error) { return f.counters, nil }

func (f *fixture) LastLeak() (bpf.Leak, bool, error) {
	if f.leak == nil {
		return bpf.Leak{}, false, nil
	}
	return *f.leak, true, nil
}

func (f *fixture) Observe() ([]overlay.TunnelState, error) { return f.states, nil }
func (f *fixture) Status() status.Enforcement              { return status.Enforcement{} }
func (f *fixture) Leases() []ipam.Lease                    { return make([]ipam.Lease, 3) }
func (f *fixture) Len() (int, error)                       { return 2, nil }

func (f *fixture) Stats() []ipam.PoolStats {
	return []ipam.PoolStats{{Prefix: netip.MustParsePrefix("10.244.1.0/24"), InUse: 3, Size: 253}}
}

func (f *fixture) LinkByIndex(index int) (nl.Link, error) {
	if index == 2 {
		return nl.Link{Name: "eth0"}, nil
	}
	return nl.Link{}, nl.ErrNotFound
}

func (f *fixture) reporter() *Reporter {
	return &Reporter{
		Name: "n1", Version: "v1", Encapsulation: overlay.VXLAN, Logger: slog.New(slog.DiscardHandler),
		Sources: Sources{
			View: func() *network.View { return f.view }, Lanes: f, Enforcer: f, Leases: f, QueuedDels: f, Datapath: f, Links: f, State: readiness.New(),
		},
	}
}

// TestReportBeforeTheFirstPass has all that needs none.
func TestReportBeforeTheFirstPass(t *testing.T) {
	f := &fixture{}
	n := f.reporter().Node()
	if n.Name != "n1" || n.Version != "v1" || !n.Ready || n.Pods != 3 || n.QueuedDels != 2 || !n.Encapsulation.Plaintext || n.LastLeak != nil || len(n.Peers) != 0 {
		t.Errorf("reported %+v", n)
	}
	if diff := cmp.Diff([]status.AddressUse{{Family: "ipv4", Used: 3, Size: 253}}, n.Addresses); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	if len(n.Drops) != len(bpf.Reasons()) || len(n.Paths) != len(bpf.Paths()) {
		t.Errorf("%d drop reasons and %d paths, want all of them, counted or not", len(n.Drops), len(n.Paths))
	}
}

// drops is a netfilter that has dropped something.
type drops []hostnet.Drop

func (d drops) Drops(context.Context) ([]hostnet.Drop, error) { return d, nil }

// TestReportOfNetfilter: one count for each reason, whoever has dropped.
func TestReportOfNetfilter(t *testing.T) {
	f := &fixture{counters: bpf.Counters{Drops: map[bpf.Reason]bpf.Counter{bpf.ReasonLeakIngress: {Packets: 1, Bytes: 10}}}}
	r := f.reporter()
	r.Netfilter = drops{{Reason: "leak_ingress", Packets: 2, Bytes: 20}, {Reason: "only_there", Packets: 4, Bytes: 40}}
	got := map[string]status.Drop{}
	for _, d := range r.Node().Drops {
		if _, twice := got[d.Reason]; twice {
			t.Errorf("%s is reported twice", d.Reason)
		}
		got[d.Reason] = d
	}
	if d := got["leak_ingress"]; d.Packets != 3 || d.Bytes != 30 {
		t.Errorf("reported %+v, want the sum", d)
	}
	if d := got["only_there"]; d.Packets != 4 || d.Bytes != 40 {
		t.Errorf("reported %+v", d)
	}
}

func TestReportOfLanes(t *testing.T) {
	f := &fixture{
		leak:   &bpf.Leak{Index: 2, Source: netip.MustParseAddr("10.244.1.5"), Destination: netip.MustParseAddr("10.244.2.5"), Reason: bpf.ReasonLeakEgress},
		states: []overlay.TunnelState{{Device: "sealane0", Port: 51871, Backend: backend.Kernel}},
		view: &network.View{
			Self: kube.Node{Name: "n1", UID: "u1"}, Uplinks: []string{"eth0"}, Revocations: 7,
			Plan:  overlay.Plan{MTU: 1420},
			Peers: []trust.Result{{Node: kube.Node{Name: "n2", UID: "u2"}, Err: trust.ErrNoStatement}, {Node: kube.Node{Name: "n3", UID: "u3"}, Err: keymgr.ErrSignature}},
		},
	}
	r := f.reporter()
	r.Encapsulation = overlay.WireGuard
	n := r.Node()
	if n.UID != "u1" || n.Encapsulation.MTU != 1420 || n.Revocations.Number != 7 || n.Encapsulation.Backend != "kernel" || !cmp.Equal(n.Uplinks, []string{"eth0"}) {
		t.Errorf("reported %+v", n)
	}
	if diff := cmp.Diff([]status.Device{{Name: "sealane0", Port: 51871}}, n.Encapsulation.Devices); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	want := map[string]status.PeerState{"n2": status.NoLane, "n3": status.Refused}
	for _, p := range n.Peers {
		if p.State != want[p.Name] || p.Reason == "" {
			t.Errorf("peer %s: %s because of %q, want %s with a reason", p.Name, p.State, p.Reason, want[p.Name])
		}
	}
	if len(n.Peers) != 2 || n.LastLeak == nil || n.LastLeak.Device != "eth0" {
		t.Errorf("%d peers, last leak %+v", len(n.Peers), n.LastLeak)
	}
}

func TestReportOfARevokedPeer(t *testing.T) {
	r := (&fixture{}).reporter()
	r.Encapsulation = overlay.WireGuard
	p := r.peer(trust.Result{Node: kube.Node{Name: "b"}, Err: fmt.Errorf("%w: %s", keymgr.ErrRevoked, keymgr.ReasonKeyCompromise)}, livePaths{}, "some other reason")
	if p.State != status.Revoked || p.Reason != "keyCompromise" {
		t.Errorf("reported %+v", p)
	}
}

// TestLeakIsToldOnce: an Event for what was stopped since the last look, none when
// nothing was.
func TestLeakIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, told := &fixture{counters: bpf.Counters{Drops: map[bpf.Reason]bpf.Counter{}}}, &events{}
		l := &Leaks{
			Node:     func() keymgr.NodeID { return keymgr.NodeID{Name: "n1", UID: "u1"} },
			Datapath: f, Links: f, Events: told, Logger: slog.New(slog.DiscardHandler),
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		synctest.Wait()
		f.counters = bpf.Counters{Drops: map[bpf.Reason]bpf.Counter{bpf.ReasonLeakEgress: {Packets: 2}, bpf.ReasonLeakIngress: {Packets: 1}}}
		f.leak = &bpf.Leak{Index: 9, Source: netip.MustParseAddr("10.244.1.5"), Destination: netip.MustParseAddr("10.244.2.5"), Reason: bpf.ReasonLeakIngress}
		time.Sleep(3 * leakCheck) // of the bubble
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		want := events{{
			Kind: kube.KindNode, Name: "n1", UID: "u1", Type: kube.EventWarning, Reason: "LeakStopped",
			Message: "the leak guard stopped 3 packets with a pod's address in clear; the newest: 10.244.1.5 to 10.244.2.5 on #9 (" + bpf.ReasonLeakIngress.String() + ")",
		}}
		if diff := cmp.Diff(want, *told); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}
