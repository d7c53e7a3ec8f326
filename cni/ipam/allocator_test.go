// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ipam_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/cni/ipam"
)

func TestAllocateIsIdempotentPerOwner(t *testing.T) {
	dir, clock := t.TempDir(), newClock()
	a := open(t, dir, clock, "10.244.1.0/24", "fd00:1::/64")
	owner := ipam.Owner{ContainerID: "c1", IfName: "eth0"}
	meta := ipam.Meta{Namespace: "default", Name: "web", UID: "u1", Netns: "/run/netns/1", Network: "sealane"}
	first, err := a.Allocate(owner, meta)
	if err != nil {
		t.Fatal(err)
	}
	want := ipam.Lease{
		Owner: owner, Meta: meta, Created: clock.now(),
		Addresses: addrs("10.244.1.2", "fd00:1::2"),
	}
	wantLease(t, first, want)

	clock.advance(time.Minute)
	again, err := a.Allocate(owner, meta)
	if err != nil {
		t.Fatal(err)
	}
	wantLease(t, again, want)

	want.Meta.Netns = "/run/netns/2" // the owner moved, and the lease follows
	moved, err := a.Allocate(owner, want.Meta)
	if err != nil {
		t.Fatal(err)
	}
	wantLease(t, moved, want)

	other := allocate(t, a, "c2")
	wantAddresses(t, other, "10.244.1.3", "fd00:1::3")
	second, err := a.Allocate(ipam.Owner{ContainerID: "c1", IfName: "net1"}, meta)
	if err != nil {
		t.Fatal(err)
	}
	wantAddresses(t, second, "10.244.1.4", "fd00:1::4")

	a = open(t, dir, clock, "10.244.1.0/24", "fd00:1::/64")
	got, ok := a.Lease(owner)
	if !ok {
		t.Fatal("lease is gone after a restart")
	}
	wantLease(t, got, want)
	if n := len(a.Leases()); n != 3 {
		t.Errorf("%d leases after a restart, want 3", n)
	}
	if _, ok := a.Lease(ipam.Owner{ContainerID: "c9", IfName: "eth0"}); ok {
		t.Error("an owner that never was has a lease")
	}
}

func TestAllocateRefusesAnIncompleteOwner(t *testing.T) {
	a := open(t, t.TempDir(), newClock(), "10.244.1.0/24")
	for _, owner := range []ipam.Owner{{}, {ContainerID: "c"}, {IfName: "eth0"}} {
		if _, err := a.Allocate(owner, ipam.Meta{}); !errors.Is(err, ipam.ErrOwner) {
			t.Errorf("Allocate(%+v) = %v, want ErrOwner", owner, err)
		}
	}
}

func TestCallersCannotChangeALease(t *testing.T) {
	a := open(t, t.TempDir(), newClock(), "10.244.1.0/24")
	l := allocate(t, a, "c1")
	l.Addresses[0] = netip.MustParseAddr("192.0.2.1")
	wantAddresses(t, allocate(t, a, "c1"), "10.244.1.2")
	a.Leases()[0].Addresses[0] = netip.MustParseAddr("192.0.2.1")
	wantAddresses(t, a.Leases()[0], "10.244.1.2")
}

func TestReleasedAddressesRestAlsoOverARestart(t *testing.T) {
	dir, clock := t.TempDir(), newClock()
	const small = "10.244.1.0/29" // .2 to .6
	a := open(t, dir, clock, small)
	for i := range 5 {
		allocate(t, a, fmt.Sprint("c", i))
	}
	release(t, a, "c1")
	clock.advance(20 * time.Second)
	release(t, a, "c3")
	release(t, a, "c3") // a second release changes nothing
	release(t, a, "never was")

	for range 2 { // before and after a restart
		_, err := a.Allocate(ipam.Owner{ContainerID: "new", IfName: "eth0"}, ipam.Meta{})
		if !errors.Is(err, ipam.ErrExhausted) {
			t.Fatalf("allocate = %v, want ErrExhausted", err)
		}
		for _, say := range []string{"10.244.1.0/29", "5 addresses", "5 in use", "2 were released less than 30s ago", "maxPods"} {
			if !strings.Contains(err.Error(), say) {
				t.Errorf("error does not say %q: %v", say, err)
			}
		}
		want := []ipam.PoolStats{{Prefix: netip.MustParsePrefix(small), Size: 5, InUse: 5, Resting: 2}}
		if diff := cmp.Diff(want, a.Stats(), equateLeases()); diff != "" {
			t.Errorf("stats (-want +got):\n%s", diff)
		}
		a = open(t, dir, clock, small)
	}

	clock.advance(10 * time.Second) // 30 s after the release of c1, 10 s after that of c3
	wantAddresses(t, allocate(t, a, "new"), "10.244.1.3")
	if _, err := a.Allocate(ipam.Owner{ContainerID: "newer", IfName: "eth0"}, ipam.Meta{}); err == nil {
		t.Error("c3's address was given out after 10 s")
	}
	clock.advance(20 * time.Second)
	wantAddresses(t, allocate(t, a, "newer"), "10.244.1.5")
	wantNames(t, dir, "10.244.1.2.json", "10.244.1.3.json", "10.244.1.4.json", "10.244.1.5.json", "10.244.1.6.json")
}

func TestFreedAddressesComeLastAlsoAfterARestart(t *testing.T) {
	dir, clock := t.TempDir(), newClock()
	a := open(t, dir, clock, "10.244.1.0/28", "fd00:1::/124") // 13 and 14 addresses
	var order []string
	for i := range 30 {
		id := fmt.Sprint("c", i)
		order = append(order, allocate(t, a, id).Addresses[0].String())
		release(t, a, id)
		clock.advance(time.Minute)
		if i%3 == 0 {
			a = open(t, dir, clock, "10.244.1.0/28", "fd00:1::/124")
		}
	}
	for i, addr := range order {
		if want := fmt.Sprint("10.244.1.", 2+i%13); addr != want {
			t.Errorf("lease %d is %s, want %s", i, addr, want)
		}
	}
}

func TestPrefixesChange(t *testing.T) {
	dir, clock := t.TempDir(), newClock()
	a := open(t, dir, clock)
	if _, err := a.Allocate(ipam.Owner{ContainerID: "early", IfName: "eth0"}, ipam.Meta{}); !errors.Is(err, ipam.ErrNoPrefix) {
		t.Fatalf("allocate without prefixes = %v, want ErrNoPrefix", err)
	}
	setPrefixes(t, a, "10.244.1.0/24")
	wantAddresses(t, allocate(t, a, "old"), "10.244.1.2")
	wantAddresses(t, allocate(t, a, "gone"), "10.244.1.3")

	setPrefixes(t, a, "10.9.0.0/29", "fd00:9::/64")
	wantAddresses(t, allocate(t, a, "old"), "10.244.1.2") // existing leases stay
	wantAddresses(t, allocate(t, a, "new"), "10.9.0.2", "fd00:9::2")
	release(t, a, "gone")

	setPrefixes(t, a, "fd00:9::/64", "10.244.1.0/24") // back, before the delay is over
	wantAddresses(t, allocate(t, a, "third"), "fd00:9::3", "10.244.1.4")
	a = open(t, dir, clock, "10.9.0.0/29")
	wantAddresses(t, allocate(t, a, "old"), "10.244.1.2")
	clock.advance(time.Minute)
	release(t, a, "old")
	clock.advance(time.Minute)
	a.Stats() // sweeps
	wantNames(t, dir, "10.9.0.2_fd00:9::2.json", "fd00:9::3_10.244.1.4.json")

	for _, bad := range [][]string{{"10.9.0.0/29", "10.8.0.0/29"}, {"10.9.0.0/32"}} {
		if err := a.SetPrefixes(prefixes(bad...)); !errors.Is(err, ipam.ErrPrefix) {
			t.Errorf("SetPrefixes(%v) = %v, want ErrPrefix", bad, err)
		}
	}
	wantAddresses(t, allocate(t, a, "after"), "10.9.0.3") // a refused change changes nothing
}

func TestSettingTheSamePrefixesKeepsThePlaceInTheCircle(t *testing.T) {
	a := open(t, t.TempDir(), newClock(), "10.244.1.0/24")
	allocate(t, a, "c1")
	release(t, a, "c1")
	setPrefixes(t, a, "10.244.1.0/24")
	wantAddresses(t, allocate(t, a, "c2"), "10.244.1.3")
}

func TestTheDeadAreStaleAfterTheGrace(t *testing.T) {
	dir, clock := t.TempDir(), newClock()
	a := open(t, dir, clock, "10.244.1.0/24")
	for _, id := range []string{"live", "dead", "retried"} {
		allocate(t, a, id)
	}
	live := func(l ipam.Lease) bool { return l.Owner.ContainerID == "live" }
	wantStale(t, a, live) // an ADD in progress is in no list of live pods

	clock.advance(ipam.DefaultGrace - time.Second)
	allocate(t, a, "retried") // a repeated ADD for an old lease
	clock.advance(time.Second)
	wantStale(t, a, live, "dead")
	release(t, a, "dead")
	wantStale(t, a, live)

	clock.advance(ipam.DefaultGrace)
	wantStale(t, a, live, "retried")
	// The lease that is asked for meanwhile is kept.
	wantStale(t, a, func(l ipam.Lease) bool {
		if l.Owner.ContainerID == "retried" {
			allocate(t, a, "retried")
		}
		return live(l)
	})

	// The grace also holds after a restart and when the clock was set back.
	clock.advance(-24 * time.Hour)
	a = open(t, dir, clock, "10.244.1.0/24")
	wantStale(t, a, live)
	clock.advance(ipam.DefaultGrace)
	wantStale(t, a, live, "retried")
}

func TestManyOwnersAtOnce(t *testing.T) {
	dir := t.TempDir()
	a, err := ipam.Open(dir, prefixes("10.244.1.0/25", "fd00:1::/64"), ipam.Options{ReuseDelay: -1})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	holders := map[netip.Addr]string{}
	var all sync.WaitGroup
	for worker := range 16 {
		// Two goroutines act for each owner, like a runtime that retries.
		owner := ipam.Owner{ContainerID: fmt.Sprint("c", worker/2), IfName: "eth0"}
		all.Go(func() {
			for range 10 {
				l, err := a.Allocate(owner, ipam.Meta{})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, addr := range l.Addresses {
					if other, taken := holders[addr]; taken && other != owner.ContainerID {
						t.Errorf("%v is of %s and of %s", addr, other, owner.ContainerID)
					}
					holders[addr] = owner.ContainerID
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if len(holders) != 16 {
		t.Errorf("8 owners got %d addresses, want 16", len(holders))
	}
	for i := range 8 {
		all.Go(func() {
			for range 3 {
				if err := a.Release(ipam.Owner{ContainerID: fmt.Sprint("c", i), IfName: "eth0"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if s := a.Stats(); s[0].InUse != 0 || s[1].InUse != 0 {
		t.Errorf("stats after all were released: %+v", s)
	}
	wantNames(t, dir)
}

// clock is a time that only tests advance.
type clock struct{ at time.Time }

func newClock() *clock                       { return &clock{time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }
func (c *clock) now() time.Time              { return c.at }
func (c *clock) advance(d time.Duration)     { c.at = c.at.Add(d) }
func addrs(texts ...string) (a []netip.Addr) { return parseAll(netip.MustParseAddr, texts) }
func prefixes(texts ...string) []netip.Prefix {
	return parseAll(netip.MustParsePrefix, texts)
}

func parseAll[T any](parse func(string) T, texts []string) (all []T) {
	for _, t := range texts {
		all = append(all, parse(t))
	}
	return all
}

func open(t *testing.T, dir string, clock *clock, texts ...string) *ipam.Allocator {
	t.Helper()
	a, err := ipam.Open(dir, prefixes(texts...), ipam.Options{Clock: clock.now})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func allocate(t *testing.T, a *ipam.Allocator, id string) ipam.Lease {
	t.Helper()
	l, err := a.Allocate(ipam.Owner{ContainerID: id, IfName: "eth0"}, ipam.Meta{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func release(t *testing.T, a *ipam.Allocator, id string) {
	t.Helper()
	if err := a.Release(ipam.Owner{ContainerID: id, IfName: "eth0"}); err != nil {
		t.Fatal(err)
	}
}

func setPrefixes(t *testing.T, a *ipam.Allocator, texts ...string) {
	t.Helper()
	if err := a.SetPrefixes(prefixes(texts...)); err != nil {
		t.Fatal(err)
	}
}

func wantAddresses(t *testing.T, l ipam.Lease, want ...string) {
	t.Helper()
	if diff := cmp.Diff(addrs(want...), l.Addresses, equateLeases()); diff != "" {
		t.Errorf("addresses of %s (-want +got):\n%s", l.Owner, diff)
	}
}

func wantLease(t *testing.T, got, want ipam.Lease) {
	t.Helper()
	if diff := cmp.Diff(want, got, equateLeases()); diff != "" {
		t.Errorf("lease (-want +got):\n%s", diff)
	}
}

func wantStale(t *testing.T, a *ipam.Allocator, live func(ipam.Lease) bool, want ...string) {
	t.Helper()
	var got []string
	for _, l := range a.Stale(live) {
		got = append(got, l.Owner.ContainerID)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stale (-want +got):\n%s", diff)
	}
}

func equateLeases() cmp.Option {
	return cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
}
