// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ipam_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sealane/sealane/cni/ipam"
)

// model knows what an Allocator must answer: every address of every prefix, its present or
// last owner, and since when it is free.
type model struct {
	circles []*oracle
	leases  map[string][]netip.Addr
	rest    map[netip.Addr]time.Time // time of release
	delay   time.Duration
	// exact is false if the allocator may have lost its place in the round robin.
	exact bool
}

func newModel(delay time.Duration, prefixes []netip.Prefix) *model {
	m := &model{leases: map[string][]netip.Addr{}, rest: map[netip.Addr]time.Time{}, delay: delay, exact: true}
	for _, p := range prefixes {
		m.circles = append(m.circles, newOracle(p))
	}
	return m
}

// wake frees the addresses whose reuse delay has passed.
func (m *model) wake(now time.Time) {
	for addr, since := range m.rest {
		if now.Sub(since) >= m.delay {
			delete(m.rest, addr)
			for _, c := range m.circles {
				delete(c.used, addr)
			}
		}
	}
}

// allocate checks the answer to an allocation for id.
func (m *model) allocate(id string, now time.Time, got []netip.Addr, err error) error {
	if held, ok := m.leases[id]; ok {
		if err != nil || !slices.Equal(got, held) {
			return fmt.Errorf("owner of %v got %v, %v", held, got, err)
		}
		return nil
	}
	m.wake(now)
	if slices.ContainsFunc(m.circles, func(c *oracle) bool { return len(c.used) == len(c.addrs) }) {
		m.exact = false
		if !errors.Is(err, ipam.ErrExhausted) {
			return fmt.Errorf("got %v, %v where nothing is left", got, err)
		}
		return nil
	}
	if err != nil || len(got) != len(m.circles) {
		return fmt.Errorf("got %v, %v though there is one", got, err)
	}
	for i, c := range m.circles {
		if err := c.accept(got[i], m.exact); err != nil {
			return err
		}
	}
	m.leases[id], m.exact = got, true
	return nil
}

// accept checks that addr is the next one of the round robin, or any free one if the place
// in it is unknown.
func (o *oracle) accept(addr netip.Addr, exact bool) error {
	place := slices.Index(o.addrs, addr)
	if place < 0 || o.used[addr] {
		return fmt.Errorf("got %v, which is not free", addr)
	}
	if want, _ := o.next(); exact && want != addr {
		return fmt.Errorf("got %v, want %v", addr, want)
	} else if want != addr {
		delete(o.used, want)
	}
	o.used[addr], o.last = true, place
	return nil
}

func (m *model) release(id string, now time.Time) {
	for _, addr := range m.leases[id] {
		m.rest[addr] = now
	}
	delete(m.leases, id)
}

// TestAllocatorAgreesWithModel compares random calls, restarts and passing time with the
// model.
func TestAllocatorAgreesWithModel(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 9))
			all := prefixes("10.1.2.0/28", "fd00::/125")
			if seed%2 == 1 {
				all = prefixes("fd00::/124")
			}
			store, clock := memStore{}, newClock()
			opts := ipam.Options{Clock: clock.now, ReuseDelay: 5 * time.Second}
			a, m := reopen(t, store, all, opts), newModel(opts.ReuseDelay, all)
			for step := range 4000 {
				clock.advance(time.Duration(1+random.IntN(1500)) * time.Millisecond)
				owner := ipam.Owner{ContainerID: fmt.Sprint("c", random.IntN(20)), IfName: "eth0"}
				switch random.IntN(20) {
				case 0:
					a = reopen(t, store, all, opts)
				case 1, 2, 3, 4, 5, 6, 7, 8, 9, 10:
					l, err := a.Allocate(owner, ipam.Meta{})
					if err := m.allocate(owner.ContainerID, clock.now(), l.Addresses, err); err != nil {
						t.Fatalf("step %d: allocate %s: %v", step, owner, err)
					}
				default:
					if err := a.Release(owner); err != nil {
						t.Fatal(err)
					}
					m.release(owner.ContainerID, clock.now())
				}
				if got := len(a.Leases()); got != len(m.leases) {
					t.Fatalf("step %d: %d leases, want %d", step, got, len(m.leases))
				}
			}
		})
	}
}

func reopen(t *testing.T, store ipam.Store, all []netip.Prefix, opts ipam.Options) *ipam.Allocator {
	t.Helper()
	a, err := ipam.New(store, all, opts)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
