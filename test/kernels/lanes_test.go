// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build kernels

package kernels

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/overlay"
)

const (
	marker   = "sealane-kernels-marker"
	transfer = 1 << 20 // bytes of a TCP transfer: enough for segmentation offloads
	patience = 30 * time.Second
)

func split(list string) []string { return strings.Split(list, ",") }

func TestPrivilegedPodsTalkThroughWireGuard(t *testing.T) {
	talk(t, overlay.WireGuard)
}

func TestPrivilegedPodsTalkThroughVXLAN(t *testing.T) {
	talk(t, overlay.VXLAN)
}

// talk lets pods and nodes talk in every direction, and looks at the ways that
// the packets took and at the wire.
func talk(t *testing.T, kind overlay.Kind) {
	n1, n2 := twoNodes(t, kind)
	a, b, c := n1.pod(), n1.pod(), n2.pod()
	wire := capture(t, n1.ns)
	for _, tc := range []struct {
		name     string
		from, to *nettest.NS
		address  []netip.Addr
	}{
		{"pod to pod on its node", a.ns, b.ns, b.addresses},
		{"pod to pod on the other node", a.ns, c.ns, c.addresses},
		{"and back", c.ns, a.ns, a.addresses},
		{"pod to the other node", a.ns, n2.ns, n2.id.Live.Addresses},
		{"pod to its own node", a.ns, n1.ns, n1.id.Live.Addresses},
		{"node to pod on the other node", n1.ns, c.ns, c.addresses},
		{"node to its own pod", n1.ns, a.ns, a.addresses},
	} {
		for _, address := range tc.address {
			t.Run(tc.name+" "+address.String(), func(t *testing.T) {
				if err := send(tc.from, tc.to, address); err != nil {
					t.Error(err)
				}
				if out, err := tc.from.Try("ping", "-c", "1", "-W", "5", address.String()); err != nil {
					t.Errorf("ping: %v\n%s", err, out)
				}
				// Larger than the lane: fragmented by the sender, put together by the receiver.
				if out, err := tc.from.Try("ping", "-c", "1", "-W", "5", "-s", "4000", address.String()); err != nil {
					t.Errorf("ping in fragments: %v\n%s", err, out)
				}
			})
		}
	}
	for i, address := range a.addresses {
		// What a pod begins with another node has its node's address; what a node
		// begins with a pod comes back from the pod, in fragments too.
		for _, size := range []int{100, 3000} {
			if seen, err := ask(a.ns, n2.ns, n2.id.Live.Addresses[i], size); err != nil || seen != n1.id.Live.Addresses[i] {
				t.Errorf("pod asks the other node for %d bytes: seen as %s: %v", size, seen, err)
			}
			if seen, err := ask(n2.ns, a.ns, address, size); err != nil || seen != n2.id.Live.Addresses[i] {
				t.Errorf("node asks the other node's pod for %d bytes: seen as %s: %v", size, seen, err)
			}
		}
	}
	for _, n := range []*node{n1, n2} {
		got := n.counted()
		for _, way := range []bpf.Path{bpf.PathLaneOut, bpf.PathLaneIn} {
			if got.Paths[way].Packets == 0 {
				t.Errorf("%s: no packet took the way %s", n.id.Live.ID.Name, way)
			}
		}
		for reason, count := range got.Drops {
			if count.Packets != 0 && !expected(reason, kind) {
				t.Errorf("%s: %d packets dropped: %s", n.id.Live.ID.Name, count.Packets, reason)
			}
		}
	}
	if n1.counted().Paths[bpf.PathLocal].Packets == 0 {
		t.Error("no packet took the way between pods of a node")
	}
	wire.check(t, kind)
}

// expected tells which packets are dropped although all is well: what the kernel
// itself sends on a new device, to routers and multicast listeners.
func expected(reason bpf.Reason, kind overlay.Kind) bool {
	return reason == bpf.ReasonMulticast || reason == bpf.ReasonLinkLocal || reason == bpf.ReasonNoLane && kind == overlay.VXLAN
}

// TestPrivilegedGuards: what must not pass does not, and is counted.
func TestPrivilegedGuards(t *testing.T) {
	n1, n2 := twoNodes(t, overlay.WireGuard)
	a, c := n1.pod(), n2.pod()
	if err := send(a.ns, c.ns, c.addresses[0]); err != nil {
		t.Fatal(err)
	}
	for i, address := range c.addresses {
		// A route that somebody else made, round the lane.
		flag, via := "-4", n2.id.Live.Addresses[i].String()
		if address.Is6() {
			flag = "-6"
		}
		before := n1.counted().Drops[bpf.ReasonLeakEgress].Packets
		n1.ns.Run("ip", flag, "route", "add", netip.PrefixFrom(address, address.BitLen()).String(), "via", via, "dev", uplinkName)
		if out, err := n1.ns.Try("ping", "-c", "1", "-W", "1", address.String()); err == nil {
			t.Errorf("a packet to %s got round the lane in clear:\n%s", address, out)
		}
		if n1.counted().Drops[bpf.ReasonLeakEgress].Packets == before {
			t.Errorf("the leak guard has not counted the packet to %s", address)
		}
	}
	for i, source := range []string{"10.1.1.77", "fd00:1:0:1::77"} {
		before := n1.counted().Drops[bpf.ReasonSpoofedSource].Packets
		a.ns.Run("ip", "address", "add", source, "dev", "eth0", "nodad")
		to := n1.id.Live.Addresses[i].String()
		if out, err := a.ns.Try("ping", "-c", "1", "-W", "1", "-I", source, to); err == nil {
			t.Errorf("a packet from %s, which is not the pod's, was answered:\n%s", source, out)
		}
		if n1.counted().Drops[bpf.ReasonSpoofedSource].Packets == before {
			t.Errorf("the packet from %s was not counted", source)
		}
	}
}

// send transfers bytes over TCP and a datagram over UDP, both with the marker.
func send(from, to *nettest.NS, address netip.Addr) error {
	return errors.Join(sendTCP(from, to, address), sendUDP(from, to, address))
}

func sendTCP(from, to *nettest.NS, address netip.Addr) error {
	var l net.Listener
	var err error
	to.Do(func() { l, err = net.Listen("tcp", netip.AddrPortFrom(address, 0).String()) })
	if err != nil {
		return err
	}
	defer l.Close()
	answer := make(chan [32]byte, 1)
	go func() {
		defer close(answer)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		h := sha256.New()
		if _, err := io.Copy(h, conn); err == nil {
			answer <- [32]byte(h.Sum(nil))
		}
	}()
	data := bytes.Repeat([]byte(marker), transfer/len(marker))
	from.Do(func() { err = dialAndWrite("tcp", l.Addr().String(), data) })
	if err != nil {
		return err
	}
	if got := <-answer; got != sha256.Sum256(data) {
		return errors.New("TCP: what came is not what was sent")
	}
	return nil
}

func dialAndWrite(network, to string, data []byte) error {
	conn, err := net.DialTimeout(network, to, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err = conn.Write(data)
	return err
}

func sendUDP(from, to *nettest.NS, address netip.Addr) error {
	var l net.PacketConn
	var err error
	to.Do(func() { l, err = net.ListenPacket("udp", netip.AddrPortFrom(address, 0).String()) })
	if err != nil {
		return err
	}
	defer l.Close()
	from.Do(func() { err = dialAndWrite("udp", l.LocalAddr().String(), []byte(marker)) })
	if err != nil {
		return err
	}
	got := make([]byte, 100)
	if err := l.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	n, _, err := l.ReadFrom(got)
	if err != nil {
		return err
	}
	if string(got[:n]) != marker {
		return fmt.Errorf("UDP: %q came", got[:n])
	}
	return nil
}

// ask sends a datagram and wants one of so many bytes in answer, twice; it gives
// the address that it was seen as.
func ask(from, to *nettest.NS, address netip.Addr, size int) (netip.Addr, error) {
	var server *net.UDPConn
	var err error
	to.Do(func() { server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(address, 0))) })
	if err != nil {
		return netip.Addr{}, err
	}
	defer server.Close()
	var client net.Conn
	from.Do(func() { client, err = net.Dial("udp", server.LocalAddr().String()) })
	if err != nil {
		return netip.Addr{}, err
	}
	defer client.Close()
	deadline := time.Now().Add(patience)
	if err := errors.Join(client.SetDeadline(deadline), server.SetDeadline(deadline)); err != nil {
		return netip.Addr{}, err
	}
	var seen netip.AddrPort
	data := bytes.Repeat([]byte(marker), size/len(marker)+1)[:size]
	for range 2 {
		got := make([]byte, size+1)
		if _, err := client.Write([]byte(marker)); err != nil {
			return netip.Addr{}, err
		}
		if _, seen, err = server.ReadFromUDPAddrPort(got); err != nil {
			return netip.Addr{}, err
		}
		if _, err := server.WriteToUDPAddrPort(data, seen); err != nil {
			return netip.Addr{}, err
		}
		n, err := client.Read(got)
		if err != nil || !bytes.Equal(got[:n], data) {
			return netip.Addr{}, fmt.Errorf("%d bytes in answer: %w", n, err)
		}
	}
	return seen.Addr().Unmap(), nil
}

// wire is a capture on a node's uplink.
type wire struct {
	cmd  *exec.Cmd
	file string
}

func capture(t *testing.T, ns *nettest.NS) *wire {
	t.Helper()
	w := &wire{file: filepath.Join(t.TempDir(), "wire.pcap")}
	w.cmd = ns.Command("tcpdump", "-U", "-s", "0", "-i", uplinkName, "-w", w.file, "-Z", "root")
	said, err := w.cmd.StderrPipe()
	if err == nil {
		err = w.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.cmd.Process.Kill() })
	if _, err := said.Read(make([]byte, 1)); err != nil { // it says that it listens
		t.Fatalf("tcpdump: %v", err)
	}
	return w
}

// check ends the capture: it holds lanes, no pod's address, and the marker only
// where lanes are not encrypted or nodes speak to each other.
func (w *wire) check(t *testing.T, kind overlay.Kind) {
	t.Helper()
	if err := w.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = w.cmd.Wait() // its status tells how it was ended
	read := func(filter string) string {
		out, err := exec.Command("tcpdump", "-Z", "root", "-nr", w.file, filter).Output()
		if err != nil {
			t.Fatalf("read capture: %v", err)
		}
		return string(out)
	}
	lane := map[overlay.Kind]string{overlay.WireGuard: "udp portrange 51871-51874", overlay.VXLAN: "udp port 4789"}[kind]
	if read(lane) == "" {
		t.Error("the capture shows no lane: it proves nothing")
	}
	if seen := read("net 10.1.0.0/16 or net fd00:1::/48"); seen != "" {
		t.Errorf("pods' addresses in clear:\n%.2000s", seen)
	}
	if other := read("not (" + lane + ") and not arp and not icmp6 and not (ip6 and ip6[6] == 0)"); other != "" {
		t.Errorf("packets that are neither lane nor neighbour discovery:\n%.2000s", other)
	}
	data, err := os.ReadFile(w.file)
	if err != nil {
		t.Fatal(err)
	}
	if found := bytes.Contains(data, []byte(marker)); found != (kind == overlay.VXLAN) {
		t.Errorf("payload in clear on the wire: %v, lanes are %s", found, kind)
	}
}
