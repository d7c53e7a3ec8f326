// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"net/netip"

	"github.com/sealane/sealane/bpf/words"
)

// encodePrefix returns a prefix as a key of the maps: of 128 bits, IPv4 mapped into IPv6.
func encodePrefix(p netip.Prefix) podPrefix {
	p = p.Masked()
	k := podPrefix{Len: uint32(p.Bits())}
	if p.Addr().Is4() {
		k.Len += 96
	}
	k.Addr.W = words.Of(p.Addr())
	return k
}

func decodePrefix(k podPrefix) netip.Prefix {
	a, bits := words.Addr(k.Addr.W), int(k.Len)
	if a.Is4() {
		bits -= 96
	}
	return netip.PrefixFrom(a, bits)
}
