// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/overlay"
)

// addresses are forwards for so many addresses of peers.
func addresses(n int) []Forward {
	var all []Forward
	for i := range n {
		all = append(all, Forward{Prefix: single(netip.AddrFrom4([4]byte{1, byte(i >> 16), byte(i >> 8), byte(i)})), Kind: overlay.NodeRemote})
	}
	return all
}

func needed() []Forward {
	return []Forward{
		{Prefix: netip.MustParsePrefix("10.244.0.0/16"), Kind: overlay.Cluster},
		{Prefix: netip.MustParsePrefix("10.244.2.0/24"), Kind: overlay.PodRemote, Index: 7},
		{Prefix: netip.MustParsePrefix("10.244.1.0/24"), Kind: overlay.PodLocal},
		{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Kind: overlay.NodeLocal},
	}
}

// TestAddressesOfPeersStayOutFirst: one peer could have as many as it likes.
func TestAddressesOfPeersStayOutFirst(t *testing.T) {
	prefixes := func(all []Forward) string {
		var s []string
		for _, f := range all {
			s = append(s, f.Prefix.String())
		}
		return strings.Join(s, " ")
	}
	want := slices.Concat(addresses(3), needed())
	for room, expect := range map[int][2]string{
		0: {"", "10.244.1.0/24 192.0.2.1/32 10.244.0.0/16 10.244.2.0/24 1.0.0.0/32 1.0.0.1/32 1.0.0.2/32"},
		3: {"10.244.1.0/24 192.0.2.1/32 10.244.0.0/16", "10.244.2.0/24 1.0.0.0/32 1.0.0.1/32 1.0.0.2/32"},
		5: {"10.244.1.0/24 192.0.2.1/32 10.244.0.0/16 10.244.2.0/24 1.0.0.0/32", "1.0.0.1/32 1.0.0.2/32"},
		9: {"10.244.1.0/24 192.0.2.1/32 10.244.0.0/16 10.244.2.0/24 1.0.0.0/32 1.0.0.1/32 1.0.0.2/32", ""},
	} {
		if fits, rest := fit(want, room); prefixes(fits) != expect[0] || prefixes(rest) != expect[1] {
			t.Errorf("room for %d: %s, and no room for %s; want %q", room, prefixes(fits), prefixes(rest), expect)
		}
	}
}

// TestPrivilegedFullTableOfForwards: a table that is full of addresses does not keep what is
// gone, and has all that more depends on.
func TestPrivilegedFullTableOfForwards(t *testing.T) {
	d := load(t)
	const room = 300
	small, err := ebpf.NewMap(&ebpf.MapSpec{
		Type: ebpf.LPMTrie, KeySize: d.maps.SlForwards.KeySize(), ValueSize: d.maps.SlForwards.ValueSize(), MaxEntries: room, Flags: unix.BPF_F_NO_PREALLOC,
	})
	if err != nil {
		t.Fatal(err)
	}
	large := d.maps.SlForwards
	d.maps.SlForwards = small
	t.Cleanup(func() {
		d.maps.SlForwards = large
		if err := small.Close(); err != nil {
			t.Error(err)
		}
	})
	gone := Forward{Prefix: netip.MustParsePrefix("10.244.3.0/24"), Kind: overlay.PodRemote, Index: 8}
	if err := d.SyncForwards(append(addresses(room-1), gone)); err != nil {
		t.Fatalf("as many as there is room for: %v", err)
	}
	want := slices.Concat(addresses(room+1), needed())
	err = d.SyncForwards(want)
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "1.0.1.40/32 to 1.0.1.44/32 (5 forwards)") {
		t.Errorf("error %v, want what has no room", err)
	}
	holds(t, d, room, gone)

	// A lane changes its device while the table is full.
	want[len(want)-3].Index = 9
	if err := d.SyncForwards(want); !errors.Is(err, ErrFull) {
		t.Errorf("error %v", err)
	}
	holds(t, d, room, gone)
	have, err := entries[podPrefix, podForward](d.maps.SlForwards)
	k, v := encodeForward(want[len(want)-3])
	if err != nil || have[k] != v {
		t.Errorf("%s has %+v, %v; want %+v", want[len(want)-3].Prefix, have[k], err, v)
	}
	if err := d.SyncForwards(needed()); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
	holds(t, d, len(needed()), gone)
}

func holds(t *testing.T, d *Datapath, n int, gone Forward) {
	t.Helper()
	have, err := entries[podPrefix, podForward](d.maps.SlForwards)
	if err != nil || len(have) != n {
		t.Errorf("%d entries, %v; want %d", len(have), err, n)
	}
	if _, there := have[encodePrefix(gone.Prefix)]; there {
		t.Errorf("%s is gone and has its entry still", gone.Prefix)
	}
	for _, f := range needed() {
		if _, there := have[encodePrefix(f.Prefix)]; !there {
			t.Errorf("%s has no entry", f.Prefix)
		}
	}
}
