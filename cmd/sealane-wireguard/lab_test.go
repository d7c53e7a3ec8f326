// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/overlay/hostnet"
	"github.com/sealane/sealane/overlay/overlaytest"
	"github.com/sealane/sealane/overlay/wireguard"
	"github.com/sealane/sealane/overlay/wireguard/process"
)

// asProgram makes the test binary behave as the program itself.
const asProgram = "SEALANE_WIREGUARD_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

// clusterCIDRs are the pod ranges of the test cluster.
func clusterCIDRs() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("fd00::/48")}
}

// lab is a network of nodes, each a namespace with an own WireGuard process.
type lab struct {
	t        *testing.T
	families string // "4", "6" or "46"
	wire     *nettest.NS
	ca       *overlaytest.Authority
	nodes    []*node
	leaks    atomic.Int64 // packets with a pod's address in the clear
	carried  atomic.Int64 // packets between the lanes' ports
	segments atomic.Int64 // of TCP in the clear
	marked   atomic.Int64 // packets with the marker in the clear
}

type node struct {
	lab     *lab
	n       int
	ns      *nettest.NS
	id      keymgr.NodeID
	key     keymgr.PeerKey
	host    *hostnet.Host
	lanes   *wireguard.Backend
	address []netip.Addr
	socket  string
	process *exec.Cmd
	log     *lockedBuffer
	// underlay is the MTU of the wire; 0 means 1500.
	underlay int
}

func newLab(t *testing.T, families string, nodes int) *lab {
	t.Helper()
	nettest.Privileged(t)
	l := &lab{t: t, families: families, wire: nettest.NewNS(t), ca: overlaytest.NewAuthority(t)}
	l.wire.Run("ip", "link", "add", "br0", "type", "bridge")
	l.wire.Run("ip", "link", "set", "br0", "up")
	for n := range nodes {
		l.addNode(n + 1)
	}
	l.capture()
	return l
}

func (l *lab) family(f byte) bool { return strings.IndexByte(l.families, f) >= 0 }

// pick keeps the addresses of the families that the lab has.
func pick[T fmt.Stringer](l *lab, four, six T) []T {
	var out []T
	if l.family('4') {
		out = append(out, four)
	}
	if l.family('6') {
		out = append(out, six)
	}
	return out
}

func (l *lab) nodeAddresses(n int) []netip.Addr {
	return pick(l, netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", n)), netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", n)))
}

func (l *lab) podCIDRs(n int) []netip.Prefix {
	return pick(l, netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/24", n)), netip.MustParsePrefix(fmt.Sprintf("fd00:0:0:%d::/64", n)))
}

// pods are the addresses of the one pod of each node.
func (l *lab) pods(n int) []netip.Addr {
	return pick(l, netip.MustParseAddr(fmt.Sprintf("10.0.%d.5", n)), netip.MustParseAddr(fmt.Sprintf("fd00:0:0:%d::5", n)))
}

func (l *lab) plug(ns *nettest.NS, port string, addrs []netip.Addr) {
	l.t.Helper()
	var onLink []netip.Prefix
	for _, a := range addrs {
		onLink = append(onLink, netip.PrefixFrom(a, map[bool]int{true: 24, false: 64}[a.Is4()]))
	}
	nettest.Wire(l.t, nettest.End{NS: l.wire, Name: port}, nettest.End{NS: ns, Name: "eth0", Addresses: onLink})
	l.wire.Run("ip", "link", "set", port, "master", "br0")
}

func (l *lab) addNode(i int) {
	t := l.t
	t.Helper()
	n := &node{lab: l, n: i, ns: nettest.NewNS(t), id: keymgr.NodeID{Name: fmt.Sprintf("n%d", i), UID: fmt.Sprintf("uid-%d", i)}, log: &lockedBuffer{}}
	n.address = l.nodeAddresses(i)
	l.plug(n.ns, fmt.Sprintf("port%d", i), n.address)
	for _, p := range l.pods(i) {
		n.ns.Run("ip", "addr", "add", p.String(), "dev", "lo")
	}
	n.ns.Isolate("/var/run/wireguard")
	n.socket = filepath.Join(t.TempDir(), "wireguard.sock")
	n.key = l.ca.Verify(t, overlaytest.Key{
		ID: n.id, Generation: uint64(i), BasePort: overlay.DefaultBasePort, Public: overlaytest.PublicKey(t, n.id.Name),
	})[0]
	n.startProcess()
	n.startDaemon()
	var err error
	if n.host, err = hostnet.New(n.ns.Handle(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	l.nodes = append(l.nodes, n)
}

// startProcess starts the program under test and waits until it answers.
func (n *node) startProcess() {
	t := n.lab.t
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n.process = n.ns.Command(self, "--socket", n.socket)
	n.process.Env = append(os.Environ(), asProgram+"=1")
	n.process.Stdout, n.process.Stderr = n.log, n.log
	if err := n.process.Start(); err != nil {
		t.Fatal(err)
	}
	p := n.process
	t.Cleanup(func() { _ = p.Process.Kill(); _ = p.Wait() })
	select {
	case <-process.Client{Socket: n.socket}.Watch(t.Context()):
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: the process does not answer:\n%s", n.id.Name, n.log)
	}
}

func (n *node) stopProcess(sig os.Signal) {
	n.lab.t.Helper()
	if err := n.process.Process.Signal(sig); err != nil {
		n.lab.t.Fatal(err)
	}
	_ = n.process.Wait()
}

// startDaemon gives the node a Backend that knows nothing of those before it.
func (n *node) startDaemon() {
	t := n.lab.t
	t.Helper()
	var err error
	n.lanes, err = wireguard.New(wireguard.Options{
		Links: n.ns.Handle(), Socket: n.socket, Logger: slog.New(slog.DiscardHandler),
		Key: func(g uint64) (keymgr.PrivateKey, bool) {
			return overlaytest.PrivateKey(n.id.Name), g == n.key.Generation()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	lanes := n.lanes
	t.Cleanup(func() { _ = lanes.Close() })
}

func (n *node) plan(peers ...*node) overlay.Plan {
	n.lab.t.Helper()
	cfg := overlay.Config{
		Kind: overlay.WireGuard, Self: n.id, Generations: []uint64{n.key.Generation()}, Addresses: n.address,
		PodCIDRs: n.lab.podCIDRs(n.n), ClusterCIDRs: clusterCIDRs(), UnderlayMTU: cmp.Or(n.underlay, 1500),
	}
	var ps []overlay.Peer
	for _, p := range peers {
		if p == n {
			continue
		}
		ps = append(ps, overlay.Peer{
			ID: p.id, Keys: []keymgr.PeerKey{p.key}, Endpoint: p.address[0], Addresses: p.address, PodCIDRs: n.lab.podCIDRs(p.n),
			Pairs: []rotation.WantedPair{{
				Pair: rotation.Pair{Own: n.key.Generation(), Peer: p.key.Generation()}, Initiate: n.n < p.n,
			}},
		})
	}
	plan, err := overlay.Compute(cfg, ps)
	if err != nil {
		n.lab.t.Fatal(err)
	}
	return plan
}

// apply makes the node know those peers, as the daemon would.
func (n *node) apply(peers ...*node) {
	t := n.lab.t
	t.Helper()
	p := n.plan(peers...)
	var err error
	n.ns.Do(func() { err = n.lanes.Apply(context.Background(), p) })
	if err == nil {
		err = n.host.Apply(context.Background(), p)
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s", n.id.Name, err, n.log)
	}
}

// applyAll makes all nodes know all nodes.
func (l *lab) applyAll() {
	l.t.Helper()
	for _, n := range l.nodes {
		n.apply(l.nodes...)
	}
}

func (n *node) observe() []overlay.TunnelState {
	n.lab.t.Helper()
	var states []overlay.TunnelState
	var err error
	n.ns.Do(func() { states, err = n.lanes.Observe() })
	if err != nil {
		n.lab.t.Fatal(err)
	}
	return states
}

// ping sends one echo request and waits up to two seconds for its answer.
func (n *node) ping(from, to netip.Addr) error {
	out, err := n.ns.Try("ping", "-n", "-c", "1", "-W", "2", "-I", from.String(), to.String())
	if err != nil {
		return fmt.Errorf("%s: ping %s from %s: %w\n%s", n.id.Name, to, from, err, out)
	}
	return nil
}

// reach wants pods and nodes of both ends to reach each other in each family.
func (l *lab) reach(a, b *node) {
	l.t.Helper()
	for _, pair := range [][2]*node{{a, b}, {b, a}} {
		x, y := pair[0], pair[1]
		for i := range l.pods(x.n) {
			for what, ends := range map[string][2]netip.Addr{
				"pod to pod":  {l.pods(x.n)[i], l.pods(y.n)[i]},
				"node to pod": {x.address[i], l.pods(y.n)[i]},
				"pod to node": {l.pods(x.n)[i], y.address[i]},
			} {
				if err := x.ping(ends[0], ends[1]); err != nil {
					l.t.Errorf("%s: %v\n%s", what, err, x.ns.Run("wg", "show"))
				}
			}
		}
	}
}

// refused wants packets to the pods of b to be refused at once, not lost.
func (l *lab) refused(a, b *node) {
	l.t.Helper()
	for i, to := range l.pods(b.n) {
		out, err := a.ns.Try("ip", "route", "get", to.String(), "from", l.pods(a.n)[i].String())
		if err == nil {
			l.t.Errorf("%s sends packets for %s somewhere: %s", a.id.Name, to, out)
		}
	}
}

// capture counts what it sees on the wire, until the test ends.
func (l *lab) capture() {
	l.t.Helper()
	var fd int
	var err error
	l.wire.Do(func() {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
	})
	if err != nil {
		l.t.Fatal(err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		l.t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "capture")
	var done sync.WaitGroup
	done.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, err := f.Read(buf)
			if err != nil {
				return
			}
			l.count(buf[:n])
		}
	})
	l.t.Cleanup(func() {
		_ = f.Close()
		done.Wait()
		if n := l.leaks.Load(); n != 0 {
			l.t.Errorf("%d packets with a pod's address in the clear", n)
		}
		if l.carried.Load() == 0 {
			l.t.Error("the capture saw no packet of a lane, so it proves nothing")
		}
	})
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// count looks at one Ethernet frame.
func (l *lab) count(frame []byte) {
	if len(frame) < 14+40 {
		return
	}
	ip := frame[14:]
	var ends [2]netip.Addr
	var proto byte
	switch {
	case bytes.Equal(frame[12:14], []byte{0x08, 0x00}):
		ends[0], ends[1], proto = netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20])), ip[9]
	case bytes.Equal(frame[12:14], []byte{0x86, 0xdd}):
		ends[0], ends[1], proto = netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40])), ip[6]
	default:
		return
	}
	for _, a := range ends {
		if slices.ContainsFunc(clusterCIDRs(), func(p netip.Prefix) bool { return p.Contains(a) }) {
			l.leaks.Add(1)
			return
		}
	}
	if bytes.Contains(ip, []byte(marker)) {
		l.marked.Add(1)
	}
	switch proto {
	case unix.IPPROTO_UDP:
		l.carried.Add(1)
	case unix.IPPROTO_TCP:
		l.segments.Add(1)
	}
}

// lockedBuffer is a log that a process writes and a test reads.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// indexes returns the lanes' device indexes by name.
func (n *node) indexes() map[string]int {
	out := map[string]int{}
	for _, s := range n.observe() {
		out[s.Device] = s.Index
	}
	return out
}

// lane returns the link of the lane towards a peer.
func (n *node) lane(to *node) nl.Link {
	n.lab.t.Helper()
	l, err := n.ns.Handle().LinkByName(overlay.TunnelName(n.key.Generation(), to.key.Generation()))
	if err != nil {
		n.lab.t.Fatal(err)
	}
	return l
}
