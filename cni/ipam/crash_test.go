// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ipam_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sealane/sealane/cni/ipam"
)

var errDisk = errors.New("disk is broken")

// brokenStore fails its n-th write, before or after the write took effect. After that it
// either works again or fails for good, as if the daemon were killed.
type brokenStore struct {
	ipam.Store
	failAt int
	after  bool // the failed write takes effect nevertheless
	dies   bool
	writes int
}

// write does the write and returns what the caller sees.
func (s *brokenStore) write(do func() error) error {
	s.writes++
	if s.writes == s.failAt {
		if s.after {
			return errors.Join(do(), errDisk)
		}
		return errDisk
	}
	if s.dies && s.writes > s.failAt {
		return errDisk
	}
	return do()
}

func (s *brokenStore) Put(l ipam.Lease) error {
	return s.write(func() error { return s.Store.Put(l) })
}

func (s *brokenStore) Delete(addrs []netip.Addr) error {
	return s.write(func() error { return s.Store.Delete(addrs) })
}

// promises is what callers were told and rely on.
type promises struct {
	held map[string][]netip.Addr // returned by Allocate and not released
	free map[string][]netip.Addr // Release returned nil: their reuse delay runs
	// unclear are the owners of a failed call: they may or may not have a lease.
	unclear map[string]bool
}

// TestNoPromiseIsBrokenByACrash fails every write of a sequence of calls in turn, in every
// way. It then compares what callers were told with the allocator, and with the one that
// follows a restart.
func TestNoPromiseIsBrokenByACrash(t *testing.T) {
	for _, after := range []bool{false, true} {
		for _, dies := range []bool{false, true} {
			for failAt := 1; ; failAt++ {
				broken := &brokenStore{Store: memStore{}, failAt: failAt, after: after, dies: dies}
				t.Run(fmt.Sprintf("write=%d,effective=%v,killed=%v", failAt, after, dies), func(t *testing.T) {
					crashOnce(t, broken)
				})
				if broken.writes < failAt {
					break // the sequence has no more writes
				}
			}
		}
	}
}

func crashOnce(t *testing.T, broken *brokenStore) {
	clock := newClock()
	opts := ipam.Options{Clock: clock.now, ReuseDelay: 30 * time.Second}
	all := prefixes("10.1.2.0/28", "fd00::/125") // 13 and 6 addresses
	a := reopen(t, broken, all, opts)
	p := promises{map[string][]netip.Addr{}, map[string][]netip.Addr{}, map[string]bool{}}
	for _, call := range []string{
		"+a", "+b", "-a", "+c", "+a", "wait", "-b", "+d", "-c", "wait", "wait", "+e", "-e", "+f", "-a", "+b",
	} {
		clock.advance(time.Second)
		p.call(t, a, clock, call)
	}
	if !broken.dies {
		p.check(t, a)
	}
	broken.failAt, broken.dies = 0, false // repaired
	a = reopen(t, broken, all, opts)
	p.check(t, a)

	// An owner whose call failed tries again, and succeeds.
	clock.advance(time.Minute)
	for id := range p.unclear {
		p.call(t, a, clock, "+"+id)
	}
	clear(p.free) // the reuse delay has passed
	p.check(t, a)
	for id := range p.held {
		p.call(t, a, clock, "-"+id)
	}
	clock.advance(time.Minute)
	if s := a.Stats(); s[0].InUse != len(a.Leases()) {
		t.Errorf("%+v, but only %d leases", s[0], len(a.Leases()))
	}
}

// call does one step and records what was promised.
func (p *promises) call(t *testing.T, a *ipam.Allocator, clock *clock, step string) {
	t.Helper()
	id := step[1:]
	owner := ipam.Owner{ContainerID: id, IfName: "eth0"}
	switch step[0] {
	case 'w':
		clock.advance(20 * time.Second)
		clear(p.free) // for simplicity, only the last released addresses are checked
	case '+':
		l, err := a.Allocate(owner, ipam.Meta{})
		switch {
		case err == nil:
			p.held[id] = l.Addresses
			delete(p.unclear, id)
		case errors.Is(err, errDisk) || errors.Is(err, ipam.ErrExhausted):
			p.unclear[id] = true
		default:
			t.Fatalf("allocate %s: %v", id, err)
		}
	case '-':
		err := a.Release(owner)
		switch {
		case err == nil:
			p.free[id] = p.held[id]
		case errors.Is(err, errDisk):
			p.unclear[id] = true
		default:
			t.Fatalf("release %s: %v", id, err)
		}
		delete(p.held, id)
	}
}

// check compares the promises with the allocator.
func (p *promises) check(t *testing.T, a *ipam.Allocator) {
	t.Helper()
	owners := map[netip.Addr]string{}
	for _, l := range a.Leases() {
		id := l.Owner.ContainerID
		want, promised := p.held[id]
		if promised && !slices.Equal(want, l.Addresses) {
			t.Errorf("%s has %v, was promised %v", id, l.Addresses, want)
		}
		if !promised && !p.unclear[id] {
			t.Errorf("%s has %v, which it gave back", id, l.Addresses)
		}
		for _, addr := range l.Addresses {
			if other := owners[addr]; other != "" {
				t.Errorf("%v is of %s and of %s", addr, other, id)
			}
			owners[addr] = id
		}
	}
	for id, want := range p.held {
		if _, ok := a.Lease(ipam.Owner{ContainerID: id, IfName: "eth0"}); !ok {
			t.Errorf("%s lost %v", id, want)
		}
	}
	for id, resting := range p.free {
		for _, addr := range resting {
			if other := owners[addr]; other != "" {
				t.Errorf("%v, released by %s just now, is of %s", addr, id, other)
			}
		}
	}
}

// A write that took effect but was reported as failed, and that could not be undone, leaves
// a second lease of its owner behind.
func TestOwnerWithTwoStoredLeasesKeepsTheNewer(t *testing.T) {
	clock, store := newClock(), memStore{}
	owner := ipam.Owner{ContainerID: "c", IfName: "eth0"}
	for i, pair := range [][]netip.Addr{addrs("10.1.2.2", "fd00::2"), addrs("10.1.2.3", "fd00::2")} {
		created := clock.now().Add(time.Duration(i) * time.Second)
		if err := store.Put(ipam.Lease{Owner: owner, Addresses: pair, Created: created}); err != nil {
			t.Fatal(err)
		}
	}
	clock.advance(time.Hour)
	a := reopen(t, store, prefixes("10.1.2.0/28", "fd00::/125"), ipam.Options{Clock: clock.now})
	wantAddresses(t, allocate(t, a, "c"), "10.1.2.3", "fd00::2")
	clock.advance(time.Hour) // the older lease's reuse delay has passed; addresses of both are still in use
	for i := range 5 {
		allocate(t, a, fmt.Sprint("d", i))
	}
	if s := a.Stats(); s[0].InUse != 6 || s[1].InUse != 6 || len(store) != 6 {
		t.Errorf("stats = %+v, %d leases stored, want 6 in use of each", s, len(store))
	}
}
