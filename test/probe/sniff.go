// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// tally counts the IP packets that arrive in this network namespace, whoever
// listens: by source and kind, such as "10.1.2.3 udp".
type tally struct {
	fd int

	mu   sync.Mutex // guards seen
	seen map[string]int
}

// sniff begins to count.
func sniff() (*tally, error) {
	all := uint16(unix.ETH_P_ALL)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(all<<8|all>>8))
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<20); err != nil {
		return nil, errors.Join(fmt.Errorf("enlarge packet socket: %w", err), unix.Close(fd))
	}
	s := &tally{fd: fd, seen: map[string]int{}}
	go s.count()
	return s, nil
}

func (s *tally) count() {
	packet := make([]byte, 128)
	for {
		n, from, err := unix.Recvfrom(s.fd, packet, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return // closed
		}
		link, ok := from.(*unix.SockaddrLinklayer)
		if !ok || link.Pkttype == unix.PACKET_OUTGOING || link.Hatype == unix.ARPHRD_LOOPBACK {
			continue
		}
		if source, kind := read(packet[:n]); source.IsValid() {
			s.mu.Lock()
			s.seen[source.String()+" "+kind]++
			s.mu.Unlock()
		}
	}
}

func (s *tally) counts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := make(map[string]int, len(s.seen))
	for k, n := range s.seen {
		counts[k] = n
	}
	return counts
}

// read gives the source and the kind of a packet.
func read(packet []byte) (source netip.Addr, kind string) {
	if len(packet) < 20 {
		return netip.Addr{}, ""
	}
	protocol, rest := packet[9], int(packet[0]&15)*4
	switch {
	case packet[0]>>4 == 4:
		source = netip.AddrFrom4([4]byte(packet[12:16]))
	case packet[0]>>4 == 6 && len(packet) >= 40:
		source = netip.AddrFrom16([16]byte(packet[8:24]))
		protocol, rest = packet[6], 40
	default:
		return netip.Addr{}, ""
	}
	return source, kindOf(protocol, packet[min(rest, len(packet)):])
}

func kindOf(protocol byte, rest []byte) string {
	switch {
	case protocol == unix.IPPROTO_UDP && len(rest) >= 4:
		return fmt.Sprintf("udp %d", binary.BigEndian.Uint16(rest[2:]))
	case protocol == unix.IPPROTO_TCP && len(rest) >= 14 && rest[13]&4 != 0:
		return "tcp reset"
	case protocol == unix.IPPROTO_TCP && len(rest) >= 14:
		return fmt.Sprintf("tcp %d", binary.BigEndian.Uint16(rest[2:]))
	case protocol == unix.IPPROTO_ICMP || protocol == unix.IPPROTO_ICMPV6:
		return "icmp"
	}
	return fmt.Sprintf("protocol %d", protocol)
}

// received counts what this network namespace has received since it was made,
// thus before any process was in it: packets of IPv4, datagrams of UDP over IPv6,
// and segments of TCP over both. IPv6 as such is no measure: a namespace hears
// multicast of its own.
func received() (packets int, err error) {
	text, err := os.ReadFile("/proc/net/snmp")
	if err != nil {
		return 0, err
	}
	wanted := map[string]string{"Ip:": "InReceives", "Tcp:": "InSegs"}
	names := map[string]int{} // where the wanted one is, by line
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || wanted[fields[0]] == "" {
			continue
		}
		i, known := names[fields[0]]
		if !known {
			names[fields[0]] = slices.Index(fields, wanted[fields[0]])
			continue
		}
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			return 0, err
		}
		packets += n
	}
	text, err = os.ReadFile("/proc/net/snmp6")
	if errors.Is(err, os.ErrNotExist) {
		return packets, nil
	}
	for line := range strings.Lines(string(text)) {
		switch fields := strings.Fields(line); fields[0] {
		case "Udp6InDatagrams", "Udp6NoPorts", "Udp6InErrors":
			n, err := strconv.Atoi(fields[1])
			if err != nil {
				return 0, err
			}
			packets += n
		}
	}
	return packets, err
}
