// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/daemonset/checkpoint"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/readiness"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/overlay"
)

// recorder is a host whose every part writes down what is done to it, in order.
type recorder struct {
	links []nl.Link
	dumps int // of devices
	did   []string
	fail  string              // what fails, by its entry in did
	hang  string              // what takes as long as it may
	peers []overlay.PeerState // of device sealane0
}

var errInjected = errors.New("injected")

func (r *recorder) do(what string) error {
	r.did = append(r.did, what)
	return r.look(what)
}

// look fails if that is asked for, and is no change of the host.
func (r *recorder) look(what string) error {
	if what == r.fail {
		return errInjected
	}
	return nil
}

func (r *recorder) Watch(context.Context) (<-chan struct{}, error) { return nil, nil }

func (r *recorder) Links() ([]nl.Link, error) {
	r.dumps++
	return slices.Clone(r.links), r.look("list devices")
}

func (r *recorder) AllAddresses() (map[int][]netip.Prefix, error) {
	if r.fail == "no address" {
		return nil, nil
	}
	return map[int][]netip.Prefix{2: {netip.MustParsePrefix("192.0.2.1/24")}}, r.look("list addresses")
}

func (r *recorder) Routes(nl.RouteFilter) ([]nl.Route, error) { return nil, r.look("list routes") }

func (r *recorder) SetPrefixes([]netip.Prefix) error { return r.look("pod ranges") }

func (r *recorder) AttachTunnel(d bpf.Device, _ bpf.Encapsulation) error {
	return r.do(fmt.Sprintf("program on %s #%d", d.Name, d.Index))
}

func (r *recorder) AttachUplink(d bpf.Device, _ bpf.Encapsulation) error {
	return r.do("leak guard on " + d.Name)
}

func (r *recorder) SyncForwards(all []bpf.Forward) error {
	return r.do(fmt.Sprintf("%d forwards", len(all)))
}

func (r *recorder) Keep(names map[string]bool) error {
	return r.do(fmt.Sprintf("pins of %d devices", len(names)))
}

// lanes is the recorder's overlay.Backend.
type lanes struct{ *recorder }

func (l lanes) Apply(_ context.Context, p overlay.Plan) error {
	peers := 0
	for _, lane := range p.Tunnels {
		peers += len(lane.Peers)
		if !slices.ContainsFunc(l.links, func(x nl.Link) bool { return x.Name == lane.Device }) {
			l.links = append(l.links, nl.Link{Name: lane.Device, Index: 10 + len(l.links), Group: overlay.DeviceGroup})
		}
	}
	return l.do(fmt.Sprintf("lanes with %d peers", peers))
}

func (l lanes) Observe() ([]overlay.TunnelState, error) {
	return []overlay.TunnelState{{Device: "sealane0", Peers: slices.Clone(l.peers)}}, l.look("read lanes")
}

func (l lanes) Remove(gone map[string][]keymgr.PublicKey) error {
	l.peers = slices.DeleteFunc(l.peers, func(p overlay.PeerState) bool { return slices.Contains(gone["sealane0"], p.Key) })
	return l.do(fmt.Sprintf("%d peers gone", len(gone["sealane0"])))
}

func (lanes) Clean() error { return nil }

// routes is the recorder's Host.
type routes struct{ *recorder }

func (r routes) Apply(ctx context.Context, _ overlay.Plan) error {
	if r.hang == "routes" {
		<-ctx.Done()
		return ctx.Err()
	}
	return r.do("routes")
}

func (r routes) Retract(overlay.Plan) error { return r.do("no routes into lanes that are gone") }

func newRecorder() (*recorder, *Loop) {
	r := &recorder{links: []nl.Link{{Name: "lo", Index: 1}, {Name: "eth0", Index: 2, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, MTU: 1500}}}
	return r, New(Config{
		Node: "self", Links: r, Datapath: r, Lanes: lanes{r}, Host: routes{r}, Ranges: r, Checkpoint: &checkpoint.Store{},
		State: readiness.New(readiness.Network, readiness.Node), Logger: slog.New(slog.DiscardHandler),
	})
}

// planned is a plan of one tunnel device with two peers, and one forward.
func planned() *View {
	return &View{
		Self: kube.Node{Name: "self", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		Plan: overlay.Plan{
			Kind: overlay.WireGuard, Tunnels: []overlay.Tunnel{{Device: "sealane0", Peers: make([]overlay.TunnelPeer, 2)}},
			Forward: []overlay.Forward{{Prefix: netip.MustParsePrefix("10.244.2.0/24"), Kind: overlay.PodRemote, Device: "sealane0"}},
		},
	}
}

func apply(t *testing.T, l *Loop) error {
	t.Helper()
	host, err := l.observe()
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.apply(t.Context(), planned(), host)
	return err
}

func firstOrder() []string {
	return []string{
		"no routes into lanes that are gone", "leak guard on eth0", "lanes with 0 peers", "program on sealane0 #12", "1 forwards", "routes", "lanes with 2 peers", "pins of 3 devices",
	}
}

// TestNoPacketBeforeThePrograms: a device gets its peers, by which packets begin to
// flow, only when the leak guard and the device's programs are there.
func TestNoPacketBeforeThePrograms(t *testing.T) {
	r, l := newRecorder()
	if err := apply(t, l); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(firstOrder(), r.did); diff != "" {
		t.Errorf("with a new device (-want +got):\n%s", diff)
	}
	r.did = nil
	if err := apply(t, l); err != nil {
		t.Fatal(err)
	}
	again := slices.DeleteFunc(firstOrder(), func(s string) bool { return s == "lanes with 0 peers" })
	if diff := cmp.Diff(again, r.did); diff != "" {
		t.Errorf("with a device that is there (-want +got):\n%s", diff)
	}
}

// TestApplyEndsWhereItFails: what comes later rests on what came before. Only routes that
// cannot be removed stop nothing.
func TestApplyEndsWhereItFails(t *testing.T) {
	for i, step := range firstOrder() {
		if i == 0 {
			i = len(firstOrder()) - 1
		}
		r, l := newRecorder()
		r.fail = step
		if err := apply(t, l); !errors.Is(err, errInjected) {
			t.Errorf("%s fails: error %v", step, err)
		}
		if diff := cmp.Diff(firstOrder()[:i+1], r.did); diff != "" {
			t.Errorf("%s fails (-want +got):\n%s", step, diff)
		}
	}
}

// TestHostIsReadOnce: devices are listed once per pass, and once more where the pass
// has made some.
func TestHostIsReadOnce(t *testing.T) {
	r, l := newRecorder()
	for _, want := range []int{2, 1} {
		r.dumps = 0
		if err := apply(t, l); err != nil {
			t.Fatal(err)
		}
		if r.dumps != want {
			t.Errorf("devices listed %d times, want %d", r.dumps, want)
		}
	}
}

func TestUplinks(t *testing.T) {
	node := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	h := host{
		links: []nl.Link{
			{Name: "lo", Index: 1, MTU: 65536},
			{Name: "sealane0", Index: 2, Group: overlay.DeviceGroup, MTU: 1420},
			{Name: "eth0", Index: 3, MTU: 1500},
			{Name: "eth1", Index: 4, MTU: 9000},
			{Name: "wlan0", Index: 5},
			{Name: "docker0", Index: 6},
		},
		addresses: map[int][]netip.Prefix{
			1: {netip.MustParsePrefix("192.0.2.1/32")}, 2: {netip.MustParsePrefix("192.0.2.1/32")}, 4: {netip.MustParsePrefix("192.0.2.1/24")},
			3: {netip.MustParsePrefix("2001:db8::1/64")}, 6: {netip.MustParsePrefix("172.17.0.1/16")},
		},
		routes: []nl.Route{
			{Dst: netip.MustParsePrefix("0.0.0.0/0"), Device: 5},
			{Dst: netip.MustParsePrefix("::/0"), Device: 6, Unreachable: true},
			{Dst: netip.MustParsePrefix("10.0.0.0/8"), Device: 6},
		},
	}
	names := func(links []nl.Link) string {
		var all []string
		for _, l := range links {
			all = append(all, l.Name)
		}
		return strings.Join(all, " ")
	}
	if got := names(h.uplinks(nil, node)); got != "eth0 eth1 wlan0" {
		t.Errorf("found %s, want the devices with addresses of both families and of the default route", got)
	}
	if got := names(h.uplinks([]string{"docker0"}, node)); got != "docker0" {
		t.Errorf("configured docker0, found %s", got)
	}
	h.links[0].Group = 0
	if mtu, err := h.underlayMTU(node); mtu != 65536 || err != nil {
		t.Errorf("an address on lo as well: %d, %v", mtu, err)
	}
	h.addresses[1] = nil
	if mtu, err := h.underlayMTU(node); mtu != 9000 || err != nil {
		t.Errorf("MTU %d, %v; want that of the device with the first address", mtu, err)
	}
	if _, err := h.underlayMTU([]netip.Addr{netip.MustParseAddr("192.0.2.9")}); err == nil || !strings.Contains(err.Error(), "--node-ip") {
		t.Errorf("no device has the address: %v", err)
	}
}
