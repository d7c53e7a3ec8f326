// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package words writes addresses and ports as the data path's maps hold them.
package words

import (
	"encoding/binary"
	"net/netip"
)

// Of returns the 16 bytes of an address (IPv4 mapped into IPv6), in words of this
// machine's byte order.
func Of(a netip.Addr) (w [4]uint32) {
	b := a.As16()
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

// Addr is the inverse of [Of]; an IPv4 address is one again.
func Addr(w [4]uint32) netip.Addr {
	var b [16]byte
	for i, v := range w {
		binary.NativeEndian.PutUint32(b[4*i:], v)
	}
	return netip.AddrFrom16(b).Unmap()
}

// Port returns a port as it stands on the wire, read in this machine's byte order; it is
// its own inverse.
func Port(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}
