// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"encoding/binary"
	"net/netip"
)

// toWords returns the 16 bytes of an address as the maps hold it (IPv4 mapped into IPv6),
// in words of this machine's byte order.
func toWords(a netip.Addr) (w [4]uint32) {
	b := a.As16()
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

func fromWords(w [4]uint32) netip.Addr {
	var b [16]byte
	for i, v := range w {
		binary.NativeEndian.PutUint32(b[4*i:], v)
	}
	return netip.AddrFrom16(b).Unmap()
}

// encodePrefix returns a prefix as a key of the maps: of 128 bits, IPv4 mapped into IPv6.
func encodePrefix(p netip.Prefix) podPrefix {
	p = p.Masked()
	k := podPrefix{Len: uint32(p.Bits())}
	if p.Addr().Is4() {
		k.Len += 96
	}
	k.Addr.W = toWords(p.Addr())
	return k
}

func decodePrefix(k podPrefix) netip.Prefix {
	a, bits := fromWords(k.Addr.W), int(k.Len)
	if a.Is4() {
		bits -= 96
	}
	return netip.PrefixFrom(a, bits)
}
