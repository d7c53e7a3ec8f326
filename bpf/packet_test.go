// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
)

// testPacket describes a packet in the oracle's terms; bytes gives it on the wire.
type testPacket struct {
	src, dst     netip.Addr
	proto        uint8
	sport, dport uint16
	flags        uint8 // TCP
	ttl          uint8
	fragment     int // 0: whole, 1: first, 2: later, 3: later, from the 8th byte on
	extensions   int // IPv6 hop-by-hop and destination options headers
	quoted       *testPacket
	tiny         bool // ends 8 bytes behind the network header
	padding      bool // the frame goes on behind the packet, with what looks like the rest of a header with ACK
	vlan         bool // neither IP nor ARP
	forwarded    bool // by this host, for pod_ingress, and no answer
}

const (
	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17
	protoSCTP = 132
	proto6    = 58
	flagSYN   = 0x02
	flagACK   = 0x10
)

func (p testPacket) echo() bool { return p.proto == protoICMP || p.proto == proto6 }

func (p testPacket) bytes() []byte {
	eth := make([]byte, 14)
	etherType := uint16(0x0800)
	switch {
	case p.vlan:
		etherType = 0x88cc
	case p.src.Is6():
		etherType = 0x86dd
	}
	binary.BigEndian.PutUint16(eth[12:], etherType)
	frame := append(eth, p.network()...)
	if p.padding {
		padding := make([]byte, 24)
		padding[4], padding[5] = 0x50, flagACK
		frame = append(frame, padding...)
	}
	return frame
}

func (p testPacket) network() []byte {
	if p.src.Is4() {
		return p.network4()
	}
	return p.network6()
}

func (p testPacket) network4() []byte {
	h := make([]byte, 20)
	payload := p.transport()
	h[0], h[8], h[9] = 0x45, p.ttl, p.proto
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(payload)))
	switch p.fragment {
	case 1:
		h[6] = 0x20
	case 2:
		h[7] = 0x10
	case 3:
		h[7] = 1
	}
	copy(h[12:], p.src.AsSlice())
	copy(h[16:], p.dst.AsSlice())
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, payload...)
}

func (p testPacket) network6() []byte {
	payload, next := p.transport(), p.proto
	if p.fragment != 0 {
		f := []byte{next, 0, 0, 1, 0, 0, 0, 9}
		switch p.fragment {
		case 2:
			f[2], f[3] = 1, 0
		case 3:
			f[3] = 8
		}
		payload, next = append(f, payload...), 44
	}
	for i := range p.extensions {
		kind := uint8(60)
		if i == p.extensions-1 {
			kind = 0
		}
		payload, next = append([]byte{next, 0, 1, 4, 0, 0, 0, 0}, payload...), kind
	}
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, next, p.ttl
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	copy(h[8:], p.src.AsSlice())
	copy(h[24:], p.dst.AsSlice())
	return append(h, payload...)
}

func (p testPacket) transport() []byte {
	b := make([]byte, 24)
	binary.BigEndian.PutUint16(b, p.sport)
	binary.BigEndian.PutUint16(b[2:], p.dport)
	switch {
	case p.proto == protoTCP:
		b[12], b[13] = 0x50, p.flags
	case p.quoted != nil:
		b[0], b[1] = 3, 4
		if p.proto == proto6 {
			b[0], b[1] = 2, 0
		}
		return append(b[:8], p.quoted.network()...)
	case p.echo():
		b[0], b[1] = 8, 0
		if p.proto == proto6 {
			b[0] = 128
		}
		binary.BigEndian.PutUint16(b[4:], p.sport)
	}
	if p.tiny {
		return b[:8]
	}
	return b
}

func checksum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// randomPacket draws from few addresses and ports, so that flows meet again.
func randomPacket(r *rand.Rand, from, to []netip.Addr) testPacket {
	p := testPacket{src: pick(r, from), ttl: 64, sport: uint16(1 + r.IntN(3)), dport: uint16(1 + r.IntN(3))}
	for p.dst = pick(r, to); p.dst.Is4() != p.src.Is4(); {
		p.dst = pick(r, to)
	}
	p.proto = pick(r, []uint8{protoTCP, protoTCP, protoTCP, protoUDP, protoUDP, protoICMP, protoSCTP, 47})
	if p.proto == protoICMP && p.src.Is6() {
		p.proto = proto6
	}
	p.flags = pick(r, []uint8{flagSYN, flagSYN | flagACK, flagACK, flagACK, flagACK | 1, 4})
	switch r.IntN(16) {
	case 0:
		p.ttl = uint8(r.IntN(3))
	case 1:
		p.fragment = 1 + r.IntN(3)
	case 2:
		p.vlan = true
	case 3, 4:
		p.extensions = r.IntN(3)
	}
	if p.echo() && p.fragment == 0 && r.IntN(2) == 0 {
		q := testPacket{src: p.dst, dst: p.src, proto: protoUDP, sport: p.dport, dport: p.sport, ttl: 9}
		if r.IntN(2) == 0 {
			q.proto = protoTCP
		}
		switch r.IntN(10) {
		case 0: // sent to another than who says so: a router does
			for q.dst = pick(r, to); q.dst.Is4() != q.src.Is4(); {
				q.dst = pick(r, to)
			}
		case 1: // not sent by whom is told: nobody does
			for q.src = pick(r, to); q.src.Is4() != q.dst.Is4(); {
				q.src = pick(r, to)
			}
		}
		p.quoted = &q
	}
	p.padding = r.IntN(4) == 0
	p.tiny = p.quoted == nil && r.IntN(8) == 0
	return p
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }
