// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/internal/nl"
)

// everyWay runs a test with programs attached by tcx, and as kernels before 6.6
// need it.
func everyWay(t *testing.T, f func(t *testing.T, n *node)) {
	t.Helper()
	for _, way := range []string{"tcx", "clsact"} {
		t.Run(way, func(t *testing.T) {
			n := newNode(t, 1)
			if way == "tcx" && !n.d.tcx {
				t.Skip("this kernel has no tcx")
			}
			n.d.tcx = way == "tcx"
			f(t, n)
		})
	}
}

// again loads the data path once more and attaches it to the same devices, as a
// daemon does that has been restarted.
func (n *node) again(devices map[string]func(*Datapath, Device) error) {
	n.t.Helper()
	tcx := n.d.tcx
	n.d = n.load()
	n.d.tcx = tcx
	for name, attach := range devices {
		in(n.t, n.NS, func() error { return attach(n.d, Device{n.link(name).Index, name}) })
	}
}

// attached gives the programs on a device, ingress and egress.
func (n *node) attached(name string) (programs []ebpf.ProgramID) {
	n.t.Helper()
	index := n.link(name).Index
	in(n.t, n.NS, func() error {
		for _, kind := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			r, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: kind})
			if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
				continue // a kernel without tcx, whatever it says to such a question
			}
			if err != nil {
				return err
			}
			for _, p := range r.Programs {
				programs = append(programs, p.ID)
			}
		}
		return nil
	})
	for _, side := range []string{"ingress", "egress"} {
		out, _ := n.Try("tc", "filter", "show", "dev", name, side)
		for _, field := range strings.Split(out, " id ")[1:] {
			var id ebpf.ProgramID
			for _, c := range strings.Fields(field)[0] {
				id = id*10 + ebpf.ProgramID(c-'0')
			}
			programs = append(programs, id)
		}
	}
	return programs
}

// awaitBare waits until no program is on a device: the kernel takes off what no
// pin holds any more, but at leisure.
func (n *node) awaitBare(name string) {
	n.t.Helper()
	deadline := time.Now().Add(patience)
	for len(n.attached(name)) != 0 {
		if time.Now().After(deadline) {
			n.t.Fatalf("left on %s: programs %v", name, n.attached(name))
		}
	}
}

const last = ^uint32(0)

// streaming is how many datagrams a second a stream has, and how often programs
// are replaced meanwhile. An emulated machine that had more to carry than it can
// would never get to the end.
func streaming() (rate, times int) {
	if testing.Short() {
		return 100, 3
	}
	return 2000, 10
}

// stream sends numbered datagrams while during runs, and gives how many were sent
// and how many different ones arrived. What a pause of the machine holds up is
// sent later, so that the stream does not thin.
func stream(send func(number []byte) error, next func() (uint32, error), during func()) (sent, arrived int) {
	stop, sentAll, gotAll := make(chan struct{}), make(chan int, 1), make(chan int, 1)
	go func() {
		seen := map[uint32]bool{}
		for {
			n, err := next()
			if err != nil || n == last {
				gotAll <- len(seen)
				return
			}
			seen[n] = true
		}
	}()
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		rate, _ := streaming()
		began, n := time.Now(), 0
		for stopped := false; !stopped; {
			select {
			case <-stop:
				stopped = true
			case <-tick.C:
			}
			for due := int(time.Since(began) * time.Duration(rate) / time.Second); n < due; n++ {
				if send(binary.BigEndian.AppendUint32(nil, uint32(n))) != nil {
					stopped = true
					break
				}
			}
		}
		_ = send(binary.BigEndian.AppendUint32(nil, last))
		sentAll <- n
	}()
	during()
	close(stop)
	return <-sentAll, <-gotAll
}

// receiver opens a socket whose buffer holds all that a slow machine leaves in it.
func (p *pod) receiver(at netip.AddrPort) func() (uint32, error) {
	p.t.Helper()
	var c *net.UDPConn
	in(p.t, p.NS, func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	p.t.Cleanup(func() { _ = c.Close() })
	raw, err := c.SyscallConn()
	if err == nil {
		err = control(raw, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20) })
	}
	if err != nil {
		p.t.Fatal(err)
	}
	buf := make([]byte, 100)
	return func() (uint32, error) {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		size, err := c.Read(buf)
		if err != nil || size != 4 {
			return 0, errors.Join(err, errPacket)
		}
		return binary.BigEndian.Uint32(buf), nil
	}
}

func TestPrivilegedReplaceLosesNothing(t *testing.T) {
	everyWay(t, func(t *testing.T, n *node) {
		far, a, b := n.addLane(2, false), n.pod(2), n.pod(3)
		n.uplink("eth0")
		v4, v6 := families[0], families[1]
		local := dial(t, a.NS, "udp", port(b.addrs[0], 1000))
		out := dial(t, a.NS, "udp", port(v6.podAddr(2, 9), 2000))
		for _, c := range []net.Conn{local, out} {
			if err := c.SetDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		write := func(c net.Conn) func([]byte) error {
			return func(b []byte) error { _, err := c.Write(b); return err }
		}
		intoPod := func(number []byte) error {
			_, err := far.Write(datagram{port(v4.podAddr(2, 9), 9), port(b.addrs[0], 3000), 64, string(number)}.bytes())
			return err
		}
		outOfLane := func() (uint32, error) {
			_ = far.SetReadDeadline(time.Now().Add(patience))
			buf := make([]byte, 2000)
			for {
				size, err := far.Read(buf)
				if err != nil {
					return 0, err
				}
				if d, err := parseDatagram(buf[:size]); err == nil && d.To.Port() == 2000 {
					return binary.BigEndian.Uint32([]byte(d.Payload)), nil
				}
			}
		}
		devices := map[string]func(*Datapath, Device) error{
			a.host.Name: (*Datapath).AttachPod, b.host.Name: (*Datapath).AttachPod,
			laneName: func(d *Datapath, dev Device) error { return d.AttachTunnel(dev, L3) },
			"eth0":   func(d *Datapath, dev Device) error { return d.AttachUplink(dev, L2) },
		}
		before := map[string][]ebpf.ProgramID{}
		for name := range devices {
			before[name] = n.attached(name)
		}
		var sent, arrived [3]int
		rate, times := streaming()
		sent[0], arrived[0] = stream(write(local), b.receiver(port(b.addrs[0], 1000)), func() {
			sent[1], arrived[1] = stream(write(out), outOfLane, func() {
				sent[2], arrived[2] = stream(intoPod, b.receiver(port(b.addrs[0], 3000)), func() {
					for range times {
						n.again(devices)
					}
				})
			})
		})
		for i, name := range []string{"pod to pod", "pod to lane", "lane to pod"} {
			if sent[i] < rate/10 || sent[i] != arrived[i] {
				t.Errorf("%s: %d of %d datagrams arrived", name, arrived[i], sent[i])
			}
		}
		t.Logf("%v datagrams, none lost", sent)
		for name := range devices {
			after := n.attached(name)
			if len(before[name]) != 2 || len(after) != 2 || after[0] == before[name][0] || after[1] == before[name][1] {
				t.Errorf("%s had programs %v and has now %v, want two others", name, before[name], after)
			}
		}
		wantDrops(t, counted(t, n.d, func() {}))
	})
}

// pinned lists the pins of links.
func (n *node) pinned() []string {
	n.t.Helper()
	all, err := filepath.Glob(filepath.Join(n.pins, "links", "*"))
	if err != nil {
		n.t.Fatal(err)
	}
	return all
}

func TestPrivilegedDetach(t *testing.T) {
	everyWay(t, func(t *testing.T, n *node) {
		n.uplink("eth0.100")
		n.addLane(2, false)
		p := n.pod(2)
		names := []string{"eth0.100", laneName, p.host.Name}
		for _, name := range names {
			dev := Device{n.link(name).Index, name}
			if got := n.attached(name); len(got) != 2 {
				t.Errorf("%s has programs %v, want two", name, got)
			}
			for range 2 { // twice is as good as once
				in(t, n.NS, func() error { return n.d.Detach(dev) })
			}
			n.awaitBare(name)
		}
		if pins := n.pinned(); len(pins) != 0 {
			t.Errorf("left pinned: %v", pins)
		}
		if out := n.Run("tc", "qdisc", "show"); strings.Contains(out, "clsact") {
			t.Errorf("left behind:\n%s", out)
		}
	})
}

// TestPrivilegedKeep has devices go and come back while no daemon looks.
func TestPrivilegedKeep(t *testing.T) {
	n := newNode(t, 1)
	if !n.d.tcx {
		t.Skip("without tcx nothing of a device is pinned")
	}
	const gone, stays = "eth1", "eth0.100"
	n.uplink(gone)
	n.uplink(stays)
	if err := n.Handle().DeleteLink(gone); err != nil {
		t.Fatal(err)
	}
	if pins := n.pinned(); len(pins) != 4 {
		t.Fatalf("%d pins, want those of two devices: %v", len(pins), pins)
	}
	if err := n.d.Keep(map[string]bool{stays: true}); err != nil {
		t.Fatal(err)
	}
	if pins := n.pinned(); len(pins) != 2 {
		t.Errorf("%d pins, want those of one device: %v", len(pins), pins)
	}
	if got := n.attached(stays); len(got) != 2 {
		t.Errorf("%s has programs %v, want two", stays, got)
	}
	// A device of the same name is another device.
	if err := n.Handle().DeleteLink(stays); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Handle().AddVeth(nl.Veth{Name: stays, PeerName: "other"}); err != nil {
		t.Fatal(err)
	}
	n.again(map[string]func(*Datapath, Device) error{
		stays: func(d *Datapath, dev Device) error { return d.AttachUplink(dev, L2) },
	})
	if got := n.attached(stays); len(got) != 2 {
		t.Errorf("the new %s has programs %v, want two", stays, got)
	}
}

// TestPrivilegedPodOfTCX: where an earlier version had put its programs on a pod's
// device by tcx, there are two programs afterwards, not four.
func TestPrivilegedPodOfTCX(t *testing.T) {
	n := newNode(t, 1)
	if !n.d.tcx {
		t.Skip("this kernel has no tcx")
	}
	p := n.pod(2)
	dev := Device{p.host.Index, p.host.Name}
	in(t, n.NS, func() error { return n.d.attachBoth(dev, podProgPodEgress, podProgPodIngress) })
	if pins, programs := n.pinned(), n.attached(dev.Name); len(pins) != 2 || len(programs) != 4 {
		t.Fatalf("pins %v, programs %v", pins, programs)
	}
	in(t, n.NS, func() error { return n.d.AttachPod(dev) })
	deadline := time.Now().Add(patience) // the kernel takes its time after the pin is gone
	for len(n.attached(dev.Name)) != 2 {
		if time.Now().After(deadline) {
			t.Fatalf("programs %v", n.attached(dev.Name))
		}
	}
	if pins := n.pinned(); len(pins) != 0 {
		t.Errorf("left pinned: %v", pins)
	}
}

func TestPrivilegedClean(t *testing.T) {
	n := newNode(t, 1)
	n.uplink("eth0")
	if err := Clean(n.pins); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(n.pins)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if len(entries) != 0 {
		t.Errorf("left pinned: %v", entries)
	}
	if n.d.tcx {
		n.awaitBare("eth0")
	}
	if err := Clean(n.pins); err != nil {
		t.Errorf("clean what is clean: %v", err)
	}
}

// TestPrivilegedStateOutlivesTheDaemon finds forwarding as an earlier daemon left it.
func TestPrivilegedStateOutlivesTheDaemon(t *testing.T) {
	n := newNode(t, 1)
	far, p := n.addLane(2, false), n.pod(2)
	want, err := n.d.Endpoints()
	if err != nil {
		t.Fatal(err)
	}
	n.d = n.load()
	got, err := n.d.Endpoints()
	if err != nil || len(got) != 2 || len(want) != 2 {
		t.Errorf("endpoints %v (%v), want %v", got, err, want)
	}
	// Nothing was attached anew, and nothing set.
	each(t, func(t *testing.T, i int, f family) {
		sendUDP(t, p.NS, port(p.addrs[i], 4000), port(f.podAddr(2, 9), 5000), "on the old programs")
		if d := far.next(t); d.Payload != "on the old programs" {
			t.Errorf("out of the lane came %+v", d)
		}
	})
}

func TestPrivilegedPinsNeedABPFFS(t *testing.T) {
	n := newNode(t, 1)
	in(t, n.NS, func() error {
		d, err := Load(Options{PinPath: t.TempDir(), Links: n.Handle()})
		if !errors.Is(err, ErrNotBPFFS) {
			return errors.Join(errors.New("loaded without a bpffs"), err, d.Close())
		}
		return nil
	})
}
