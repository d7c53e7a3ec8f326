// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
)

// TestPrivilegedRetire: maps of another layout go when all programs are ours, and
// the links stay.
func TestPrivilegedRetire(t *testing.T) {
	n := newNode(t, 1)
	n.addLane(2, false)
	old := filepath.Join(n.pins, "v0")
	if err := os.MkdirAll(filepath.Join(old, "links"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := n.d.maps.SlDrops.Pin(filepath.Join(old, "drops")); err != nil {
		t.Fatal(err)
	}
	inherited := func() bool {
		t.Helper()
		is, err := n.d.inherits()
		if err != nil {
			t.Fatal(err)
		}
		return is
	}
	if n.d.Inherited() || inherited() {
		t.Errorf("inherited: %t with no maps, %t with those of another layout, too", n.d.Inherited(), inherited())
	}
	before := len(n.attached(laneName))
	if err := n.d.Retire(); err != nil {
		t.Fatal(err)
	}
	if !inherited() {
		t.Error("the next daemon would not inherit the maps of this one")
	}
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old folder is still there: %v", err)
	}
	if _, err := os.Stat(n.d.pins); err != nil {
		t.Error(err)
	}
	if after := len(n.attached(laneName)); after != before || after == 0 {
		t.Errorf("%d programs on the lane, before %d", after, before)
	}
}

// demote makes the pins of a node what a daemon of layoutBefore leaves behind.
func demote(t *testing.T, n *node) (old string) {
	t.Helper()
	old = filepath.Join(n.pins, layoutBefore)
	if err := os.Mkdir(old, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, before := range namesBefore() {
		if err := os.Rename(filepath.Join(n.d.pins, name), filepath.Join(old, before)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(n.d.pins, podMapSlOrigins)); err != nil { // it had none
		t.Fatal(err)
	}
	if err := os.Remove(n.d.pins); err != nil { // no other map of this layout had another name
		t.Fatal(err)
	}
	return old
}

// TestPrivilegedRenamedMaps: the first daemon of this layout finds the maps of the
// one before, in which the attached programs have connections, policies and services.
func TestPrivilegedRenamedMaps(t *testing.T) {
	n := newNode(t, 1)
	far, p := n.addLane(2, false), n.pod(2)
	send := func(text string) {
		t.Helper()
		each(t, func(t *testing.T, i int, f family) {
			sendUDP(t, p.NS, port(p.addrs[i], 4000), port(f.podAddr(2, 9), 5000), text)
			if d := far.next(t); d.Payload != text {
				t.Errorf("out of the lane came %+v", d)
			}
		})
	}
	send("before")
	want := contents(t, n.d)
	old := demote(t, n)

	n.d = n.load()
	if !n.d.Inherited() {
		t.Error("the daemon does not inherit the maps of the layout before")
	}
	if got := contents(t, n.d); got != want {
		t.Errorf("found %+v, want %+v", got, want)
	}
	send("on the old programs")
	for _, before := range namesBefore() {
		if _, err := os.Stat(filepath.Join(old, before)); err != nil {
			t.Errorf("a daemon of the layout before would not find its map: %v", err)
		}
	}
	in(t, n.NS, func() error {
		return errors.Join(n.d.AttachPod(Device{p.host.Index, p.host.Name}), n.d.AttachTunnel(Device{n.lane.Index, laneName}, L3))
	})
	if err := n.d.Retire(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old pins are still there: %v", err)
	}
	send("on the new programs")
	if got := contents(t, n.d); got != want {
		t.Errorf("after all is replaced %+v, want %+v", got, want)
	}
	if n.d = n.load(); !n.d.Inherited() {
		t.Error("the next daemon would not inherit the maps of this one")
	}
}

// TestPrivilegedRenamedMapsOfAnother: where a daemon of the layout before has made
// maps of its own meanwhile, those of this layout may be behind.
func TestPrivilegedRenamedMapsOfAnother(t *testing.T) {
	n := newNode(t, 1)
	demote(t, n)
	n.d = n.load()
	drops := filepath.Join(n.pins, layoutBefore, namesBefore()[podMapSlDrops])
	if err := os.Remove(drops); err != nil {
		t.Fatal(err)
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 16, MaxEntries: 32})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Pin(drops); err != nil {
		t.Fatal(err)
	}
	if n.d = n.load(); n.d.Inherited() {
		t.Error("the daemon relies on maps that another may have left behind")
	}
}

// content is how much there is in the maps that a change of version must not empty.
type content struct {
	endpoints, forwards, flows, policies int
	generation                           uint32
}

func contents(t *testing.T, d *Datapath) (c content) {
	t.Helper()
	endpoints, err1 := d.Endpoints()
	forwards, err2 := entries[podPrefix, podForward](d.maps.SlForwards)
	flows, err3 := entries[podFlow, podFlowState](d.maps.SlFlows)
	policies, err4 := entries[[4]uint32, podEndpointPolicy](d.maps.SlEpPolicies)
	var s podPolicyState
	if err := errors.Join(err1, err2, err3, err4, d.maps.SlPolicyState.Lookup(uint32(0), &s)); err != nil {
		t.Fatal(err)
	}
	if len(endpoints) == 0 || len(forwards) == 0 || len(flows) == 0 || len(policies) == 0 {
		t.Fatalf("%d endpoints, %d forwards, %d flows, %d policies", len(endpoints), len(forwards), len(flows), len(policies))
	}
	return content{len(endpoints), len(forwards), len(flows), len(policies), s.Generation}
}
