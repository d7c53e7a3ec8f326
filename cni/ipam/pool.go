// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ipam

import (
	"fmt"
	"math"
	"net/netip"
)

// minHostBits is how many host bits a prefix needs to have at least one usable address:
// four addresses, of which up to three are skipped.
const minHostBits = 2

// Pool hands out the addresses of one prefix round robin: the search for a free address
// starts after the one handed out last, so that an address that was just freed comes last.
// It stores only the addresses in use, so the size of the prefix does not matter. A Pool is
// not safe for concurrent use.
//
// A Pool skips the network address of an IPv4 prefix, its first address (a gateway in many
// networks) and its broadcast address; of an IPv6 prefix it skips the subnet-router anycast
// address (RFC 4291, section 2.6.1) and the first one.
type Pool struct {
	prefix      netip.Prefix
	first, last netip.Addr // usable addresses
	cursor      netip.Addr // handed out last
	size        uint64
	used        map[netip.Addr]struct{}
}

// NewPool returns the pool of prefix, with no address in use. Errors wrap
// ErrPrefix.
func NewPool(prefix netip.Prefix) (*Pool, error) {
	if !prefix.IsValid() || prefix.Addr().Is4In6() {
		return nil, fmt.Errorf("%w: %q is not a prefix such as 10.244.1.0/24 or fd00:1::/64", ErrPrefix, prefix)
	}
	if prefix != prefix.Masked() {
		return nil, fmt.Errorf("%w: %s has host bits; use %s", ErrPrefix, prefix, prefix.Masked())
	}
	hostBits := prefix.Addr().BitLen() - prefix.Bits()
	if hostBits < minHostBits {
		return nil, fmt.Errorf("%w: %s is too small; use a prefix of at most %d bits",
			ErrPrefix, prefix, prefix.Addr().BitLen()-minHostBits)
	}
	p := &Pool{prefix: prefix, used: make(map[netip.Addr]struct{})}
	p.first = prefix.Addr().Next().Next()
	p.last = lastAddr(prefix)
	skipped := uint64(2)
	if prefix.Addr().Is4() {
		p.last = p.last.Prev()
		skipped++
	}
	p.cursor = p.last
	p.size = math.MaxUint64
	if hostBits < 64 {
		p.size = 1<<hostBits - skipped
	}
	return p, nil
}

// lastAddr returns the address of the prefix that has all host bits set.
func lastAddr(prefix netip.Prefix) netip.Addr {
	b := prefix.Addr().AsSlice()
	for i := prefix.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b) // of 4 or 16 bytes, as AsSlice made it
	return a
}

// Prefix returns the prefix of the pool.
func (p *Pool) Prefix() netip.Prefix { return p.prefix }

// Size returns the number of usable addresses, at most math.MaxUint64.
func (p *Pool) Size() uint64 { return p.size }

// InUse returns the number of addresses in use.
func (p *Pool) InUse() int { return len(p.used) }

// Contains reports whether the pool can hand out addr.
func (p *Pool) Contains(addr netip.Addr) bool {
	return addr.BitLen() == p.first.BitLen() && !addr.Less(p.first) && !p.last.Less(addr)
}

// Next takes the next free address and returns it. ok is false if there is none.
func (p *Pool) Next() (addr netip.Addr, ok bool) {
	if uint64(len(p.used)) >= p.size {
		return netip.Addr{}, false
	}
	for addr = p.after(p.cursor); ; addr = p.after(addr) {
		if _, taken := p.used[addr]; !taken {
			p.used[addr] = struct{}{}
			p.cursor = addr
			return addr, true
		}
	}
}

// after returns the usable address after addr; the first follows the last.
func (p *Pool) after(addr netip.Addr) netip.Addr {
	if addr == p.last {
		return p.first
	}
	return addr.Next()
}

// Take marks addr as used. It returns false, and changes nothing, if addr is used already
// or not in the pool.
func (p *Pool) Take(addr netip.Addr) bool {
	if _, taken := p.used[addr]; taken || !p.Contains(addr) {
		return false
	}
	p.used[addr] = struct{}{}
	return true
}

// Free marks addr as unused. An unused address is no error.
func (p *Pool) Free(addr netip.Addr) { delete(p.used, addr) }

// SetCursor makes the next search start after addr. An address outside of the pool changes
// nothing.
func (p *Pool) SetCursor(addr netip.Addr) {
	if p.Contains(addr) {
		p.cursor = addr
	}
}
