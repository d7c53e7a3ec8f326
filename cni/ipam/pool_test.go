// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ipam_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/sealane/sealane/cni/ipam"
)

func TestPoolBounds(t *testing.T) {
	for _, tc := range []struct {
		prefix, first, last string // last is "" if a walk would take too long
		size                uint64
	}{
		{"10.244.1.0/24", "10.244.1.2", "10.244.1.254", 253},
		{"10.244.1.64/30", "10.244.1.66", "10.244.1.66", 1},
		{"10.244.1.8/29", "10.244.1.10", "10.244.1.14", 5},
		{"10.0.0.0/8", "10.0.0.2", "", 1<<24 - 3},
		{"0.0.0.0/0", "0.0.0.2", "", 1<<32 - 3},
		{"fd00:1::/126", "fd00:1::2", "fd00:1::3", 2},
		{"fd00:1::/120", "fd00:1::2", "fd00:1::ff", 254},
		{"fd00:1::/80", "fd00:1::2", "", 1<<48 - 2},
		{"fd00:1::/65", "fd00:1::2", "", 1<<63 - 2},
		{"fd00:1::/64", "fd00:1::2", "", math.MaxUint64},
		{"fd00::/8", "fd00::2", "", math.MaxUint64},
	} {
		t.Run(tc.prefix, func(t *testing.T) {
			p := newPool(t, tc.prefix)
			if p.Size() != tc.size {
				t.Errorf("size = %d, want %d", p.Size(), tc.size)
			}
			first, ok := p.Next()
			if !ok || first.String() != tc.first {
				t.Errorf("first = %v %v, want %s", first, ok, tc.first)
			}
			if tc.last == "" {
				return
			}
			last := first
			for a, ok := p.Next(); ok; a, ok = p.Next() {
				last = a
			}
			if last.String() != tc.last || uint64(p.InUse()) != tc.size {
				t.Errorf("walk ended at %v after %d addresses, want %s after %d", last, p.InUse(), tc.last, tc.size)
			}
		})
	}
}

func TestPoolRefusesPrefix(t *testing.T) {
	for prefix, remedy := range map[string]string{
		"10.244.1.0/31": "at most 30 bits",
		"10.244.1.5/32": "at most 30 bits",
		"fd00::/127":    "at most 126 bits",
		"10.244.1.7/24": "use 10.244.1.0/24",
		"fd00::1/64":    "use fd00::/64",
	} {
		_, err := ipam.NewPool(netip.MustParsePrefix(prefix))
		if !errors.Is(err, ipam.ErrPrefix) || !strings.Contains(err.Error(), remedy) {
			t.Errorf("NewPool(%s) = %v; want ErrPrefix with %q", prefix, err, remedy)
		}
	}
	mapped := netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.0"), 120)
	for _, p := range []netip.Prefix{{}, mapped} {
		if _, err := ipam.NewPool(p); !errors.Is(err, ipam.ErrPrefix) {
			t.Errorf("NewPool(%v) = %v; want ErrPrefix", p, err)
		}
	}
}

func TestPoolTakesOnlyItsOwn(t *testing.T) {
	p := newPool(t, "10.244.1.0/24")
	for addr, want := range map[string]bool{
		"10.244.1.0": false, "10.244.1.1": false, "10.244.1.255": false, "10.244.2.9": false,
		"fd00::9": false, "::ffff:10.244.1.9": false, "10.244.1.2": true, "10.244.1.254": true,
	} {
		if got := p.Take(netip.MustParseAddr(addr)); got != want {
			t.Errorf("Take(%s) = %v, want %v", addr, got, want)
		}
	}
	if p.Take(netip.MustParseAddr("10.244.1.2")) {
		t.Error("an address in use was taken again")
	}
	if p.Take(netip.Addr{}) {
		t.Error("the zero address was taken")
	}
	p.SetCursor(netip.MustParseAddr("10.9.9.9")) // not in the pool: no effect
	if a, _ := p.Next(); a.String() != "10.244.1.3" {
		t.Errorf("next = %v, want 10.244.1.3", a)
	}
}

// oracle is a slow, simple Pool: a list of all addresses, in order.
type oracle struct {
	addrs []netip.Addr
	used  map[netip.Addr]bool
	last  int
}

func newOracle(prefix netip.Prefix) *oracle {
	o := &oracle{used: map[netip.Addr]bool{}}
	for a := prefix.Addr(); prefix.Contains(a); a = a.Next() {
		o.addrs = append(o.addrs, a)
	}
	o.addrs = o.addrs[2:]
	if prefix.Addr().Is4() {
		o.addrs = o.addrs[:len(o.addrs)-1]
	}
	o.last = len(o.addrs) - 1
	return o
}

func (o *oracle) next() (netip.Addr, bool) {
	for i := range o.addrs {
		n := (o.last + 1 + i) % len(o.addrs)
		if a := o.addrs[n]; !o.used[a] {
			o.used[a], o.last = true, n
			return a, true
		}
	}
	return netip.Addr{}, false
}

func TestPoolAgreesWithOracle(t *testing.T) {
	for _, text := range []string{"10.1.2.0/30", "10.1.2.0/28", "10.1.2.0/25", "fd00::/126", "fd00::/122"} {
		t.Run(text, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			prefix := netip.MustParsePrefix(text)
			pool, want := newPool(t, text), newOracle(prefix)
			for step := range 5000 {
				addr := want.addrs[random.IntN(len(want.addrs))]
				switch random.IntN(5) {
				case 0, 1:
					got, ok := pool.Next()
					exp, expOK := want.next()
					if got != exp || ok != expOK {
						t.Fatalf("step %d: next = %v %v, want %v %v", step, got, ok, exp, expOK)
					}
				case 2, 3:
					pool.Free(addr)
					delete(want.used, addr)
				case 4:
					if got := pool.Take(addr); got == want.used[addr] {
						t.Fatalf("step %d: take %v = %v, in use: %v", step, addr, got, want.used[addr])
					}
					want.used[addr] = true
				}
				if pool.InUse() != len(want.used) {
					t.Fatalf("step %d: %d in use, want %d", step, pool.InUse(), len(want.used))
				}
			}
		})
	}
}

func newPool(t testing.TB, prefix string) *ipam.Pool {
	t.Helper()
	p, err := ipam.NewPool(netip.MustParsePrefix(prefix))
	if err != nil {
		t.Fatal(err)
	}
	return p
}
