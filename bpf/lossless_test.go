// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/sealane/sealane/policy"
)

// TestPrivilegedChangesLoseNothing changes tables hundreds of times, with a daemon
// that starts anew in between, under two streams that all of them allow.
func TestPrivilegedChangesLoseNothing(t *testing.T) {
	n := newNode(t, 1)
	far, a, b := n.addLane(2, false), n.pod(2), n.pod(3)
	local, out := dial(t, a.NS, "udp", port(b.addrs[0], 7)), dial(t, a.NS, "udp", port(families[1].podAddr(2, 9), 7))
	for _, c := range []net.Conn{local, out} {
		if err := c.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	outOfLane := func() (uint32, error) {
		_ = far.SetReadDeadline(time.Now().Add(patience))
		buf := make([]byte, 2000)
		for {
			size, err := far.Read(buf)
			if err != nil {
				return 0, err
			}
			if d, err := parseDatagram(buf[:size]); err == nil && d.To.Port() == 7 {
				return binary.BigEndian.Uint32([]byte(d.Payload)), nil
			}
		}
	}
	r := rand.New(rand.NewPCG(uint64(os.Getpid()), 4))
	servers := append([]netip.Addr{families[1].podAddr(2, 9)}, b.addrs...)
	// Each allows the streams in another way, by other numbers.
	change := func() {
		tables := allowed(a.addrs, servers)
		renumber := policy.ID(100 * (1 + r.Uint32N(3)))
		rules := map[policy.Rule]policy.ID{}
		for k, v := range tables.Rules {
			rules[policy.Rule{Set: k.Set + renumber, Peer: k.Peer + renumber}] = v + renumber
		}
		tables.Rules = rules
		for addr, id := range tables.Identities {
			tables.Identities[addr] = id + renumber
		}
		for addr, g := range tables.Guards {
			if addr == families[1].podAddr(2, 9) {
				delete(tables.Guards, addr)
				continue
			}
			tables.Guards[addr] = policy.Guard{Egress: g.Egress + renumber, Ingress: g.Ingress + renumber}
		}
		tables.Sets = map[policy.ID]policy.Set{setIn + renumber: {}, setOut + renumber: {}, policy.Closed + renumber: {}}
		tables.Ports = map[policy.ID][]policy.Ports{echoPort + renumber: tables.Ports[echoPort]}
		guard(t, n, tables)
	}
	change()
	var sent, arrived [2]int
	rate, times := streaming()
	devices := map[string]func(*Datapath, Device) error{
		a.host.Name: (*Datapath).AttachPod, b.host.Name: (*Datapath).AttachPod,
		laneName: func(d *Datapath, dev Device) error { return d.AttachLane(dev, L3) },
	}
	send := func(c net.Conn) func([]byte) error { return func(b []byte) error { _, err := c.Write(b); return err } }
	sent[0], arrived[0] = stream(send(local), b.receiver(port(b.addrs[0], 7)), func() {
		sent[1], arrived[1] = stream(send(out), outOfLane, func() {
			for i := range 30 * times {
				if i%30 == 15 {
					n.again(devices)
				}
				change()
			}
		})
	})
	for i, name := range []string{"pod to pod", "pod to lane"} {
		if sent[i] < rate/10 || sent[i] != arrived[i] {
			t.Errorf("%s: %d of %d datagrams arrived", name, arrived[i], sent[i])
		}
	}
	t.Logf("%v datagrams, none lost, in %d changes", sent, 30*times)
	wantDrops(t, counted(t, n.d, func() {}))
}
