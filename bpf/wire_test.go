// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/internal/nettest"
)

// datagram is a UDP packet as it stands on the wire, whole and with right checksums.
type datagram struct {
	From, To netip.AddrPort
	TTL      uint8
	Payload  string
}

// udp gives the packet from its IP header on.
func (d datagram) bytes() []byte {
	b := make([]byte, 8, 8+len(d.Payload))
	binary.BigEndian.PutUint16(b, d.From.Port())
	binary.BigEndian.PutUint16(b[2:], d.To.Port())
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(d.Payload)))
	b = append(b, d.Payload...)
	binary.BigEndian.PutUint16(b[6:], l4Checksum(d.From.Addr(), d.To.Addr(), protoUDP, b))
	return ipPacket(d.From.Addr(), d.To.Addr(), d.TTL, protoUDP, b)
}

func ipPacket(from, to netip.Addr, ttl, proto uint8, payload []byte) []byte {
	var h []byte
	if from.Is4() {
		h = make([]byte, 20)
		h[0], h[8], h[9] = 0x45, ttl, proto
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
		copy(h[12:], from.AsSlice())
		copy(h[16:], to.AsSlice())
		binary.BigEndian.PutUint16(h[10:], checksum(h))
	} else {
		h = make([]byte, 40)
		h[0], h[6], h[7] = 0x60, proto, ttl
		binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
		copy(h[8:], from.AsSlice())
		copy(h[24:], to.AsSlice())
	}
	return append(h, payload...)
}

// l4Checksum is the checksum over pseudo header and payload (RFC 768, RFC 8200 8.1).
func l4Checksum(from, to netip.Addr, proto uint8, payload []byte) uint16 {
	pseudo := append(from.AsSlice(), to.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(payload)))
	pseudo = append(pseudo, 0, 0, 0, proto)
	pseudo = append(pseudo, payload...)
	if len(pseudo)%2 == 1 {
		pseudo = append(pseudo, 0)
	}
	return checksum(pseudo)
}

var errPacket = errors.New("not a whole UDP packet with right checksums")

// parseDatagram is the inverse of bytes and checks everything on the way.
func parseDatagram(b []byte) (datagram, error) {
	var d datagram
	var from, to netip.Addr
	switch {
	case len(b) >= 28 && b[0] == 0x45 && b[9] == protoUDP && checksum(b[:20]) == 0 && int(binary.BigEndian.Uint16(b[2:])) == len(b):
		from, to = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		d.TTL, b = b[8], b[20:]
	case len(b) >= 48 && b[0]>>4 == 6 && b[6] == protoUDP && int(binary.BigEndian.Uint16(b[4:])) == len(b)-40:
		from, to = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		d.TTL, b = b[7], b[40:]
	default:
		return d, errPacket
	}
	if int(binary.BigEndian.Uint16(b[4:])) != len(b) || l4Checksum(from, to, protoUDP, b) != 0 {
		return d, errPacket
	}
	d.From = netip.AddrPortFrom(from, binary.BigEndian.Uint16(b))
	d.To = netip.AddrPortFrom(to, binary.BigEndian.Uint16(b[2:]))
	d.Payload = string(b[8:])
	return d, nil
}

// tooBig is the ICMP error by which a router at from says that the packet needs
// an MTU (RFC 792 with RFC 1191; RFC 4443, 3.2).
func tooBig(from netip.Addr, quoted []byte, mtu uint16) []byte {
	icmp := make([]byte, 8)
	proto := uint8(protoICMP)
	var to netip.Addr
	if from.Is4() {
		icmp[0], icmp[1] = 3, 4
		binary.BigEndian.PutUint16(icmp[6:], mtu)
		to = netip.AddrFrom4([4]byte(quoted[12:]))
	} else {
		icmp[0], proto = 2, proto6
		binary.BigEndian.PutUint32(icmp[4:], uint32(mtu))
		to = netip.AddrFrom16([16]byte(quoted[8:]))
	}
	icmp = append(icmp, quoted...)
	if from.Is4() {
		if len(icmp)%2 == 1 {
			icmp = append(icmp, 0)
		}
		binary.BigEndian.PutUint16(icmp[2:], checksum(icmp))
	} else {
		binary.BigEndian.PutUint16(icmp[2:], l4Checksum(from, to, proto6, icmp))
	}
	return ipPacket(from, to, 64, proto, icmp)
}

// next gives the next packet that comes out of the lane and is UDP.
func (f *tun) next(t testing.TB) datagram {
	t.Helper()
	_, d := f.nextRaw(t)
	return d
}

func (f *tun) nextRaw(t testing.TB) ([]byte, datagram) {
	t.Helper()
	if err := f.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<16)
	for {
		n, err := f.Read(buf)
		if err != nil {
			t.Fatalf("nothing came out of the lane: %v", err)
		}
		if d, err := parseDatagram(buf[f.header:n]); err == nil {
			return buf[f.header:n], d
		}
	}
}

func (f *tun) send(t testing.TB, packet []byte) {
	t.Helper()
	if _, err := f.Write(append(make([]byte, f.header), packet...)); err != nil {
		t.Fatal(err)
	}
}

// sniff opens a packet socket on a device: it sees what comes in and goes out.
// A filter, if any, selects (classic BPF).
func sniff(t testing.TB, ns *nettest.NS, index, kind int, filter ...unix.SockFilter) *os.File {
	t.Helper()
	var f *os.File
	in(t, ns, func() error {
		all := uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8
		fd, err := unix.Socket(unix.AF_PACKET, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if len(filter) > 0 {
			prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
			if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
				return err
			}
		}
		f = os.NewFile(uintptr(fd), "packet socket")
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index})
	})
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// marked selects packets that carry a mark. SKF_AD_OFF + SKF_AD_MARK is where
// classic BPF finds it.
func marked() []unix.SockFilter {
	const mark = 0xfffff000 + 20
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: mark},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16},
	}
}

// control runs f on the file descriptor of a socket.
func control(c syscall.RawConn, f func(fd int) error) error {
	var err error
	outer := c.Control(func(fd uintptr) { err = f(int(fd)) })
	return errors.Join(outer, err)
}

// sendUDP sends one datagram from an address that need not be the namespace's own.
func sendUDP(t testing.TB, ns *nettest.NS, from, to netip.AddrPort, payload string) {
	t.Helper()
	var c *net.UDPConn
	in(t, ns, func() (err error) {
		c, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
		return err
	})
	_, err := c.Write([]byte(payload))
	if err := errors.Join(err, c.Close()); err != nil {
		t.Fatal(err)
	}
}
