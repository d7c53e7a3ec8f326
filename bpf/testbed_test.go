// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/policy"
)

// The testbed is a node as the daemon sets one up, with real pods. Its lane is a
// TUN device, which is to the programs what a WireGuard device is: the test holds
// the far end.

const (
	laneMTU  = 1420
	laneName = "lane0"
	// laneTable has the routes that only packets from pods take.
	laneTable = 5154
	// roomy is a queue that no pause of a busy machine fills.
	roomy = "20000"
)

var hostMAC = net.HardwareAddr{0xee, 0xee, 0xee, 0x5e, 0xa1, 0x01}

// families are the two networks of the test cluster. Node i has the i-th subnet.
var families = []family{
	{"IPv4", "10.1.0.0/16", "10.1.%d.0/24", "10.1.%d.%d", "172.30.0.%d", "169.254.1.1"},
	{"IPv6", "fd00:1::/32", "fd00:1:%d::/64", "fd00:1:%d::%d", "fd00:30::%d", "fe80::1"},
}

type family struct{ name, cluster, subnet, pod, node, gateway string }

func (f family) podRange(node int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf(f.subnet, node))
}

func (f family) podAddr(node, i int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf(f.pod, node, i))
}

func (f family) nodeAddr(node int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf(f.node, node)) }

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// node is a node of the test cluster.
type node struct {
	*nettest.NS
	t        testing.TB
	number   int
	d        *Datapath
	pins     string
	forwards []Forward
	lane     nl.Link
}

// in runs f in the namespace. Attaching needs that: a device's index means one in
// the namespace of the caller.
func in(t testing.TB, ns *nettest.NS, f func() error) {
	t.Helper()
	if err := ns.Handle().Do(f); err != nil {
		t.Fatal(err)
	}
}

func newNode(t testing.TB, number int) *node {
	t.Helper()
	nettest.Privileged(t)
	n := &node{NS: nettest.NewNS(t), t: t, number: number, pins: filepath.Join(nettest.BPFFS(t), "sealane")}
	for _, name := range []string{
		"net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1", "net/ipv4/conf/all/rp_filter=0", "net/ipv4/conf/default/rp_filter=0",
		"net/ipv4/icmp_ratelimit=0", "net/ipv6/icmp/ratelimit=0", "net/ipv4/icmp_msgs_per_sec=100000", "net/ipv4/icmp_msgs_burst=100000",
	} {
		key, value, _ := strings.Cut(name, "=")
		if _, err := n.Handle().SetSysctl(key, value); err != nil {
			t.Log(err) // what limits ICMP errors is the host's on some kernels
		}
	}
	// What the node itself says to its links (MLD, neighbour discovery) would be counted too.
	n.nft("table ip6 quiet { chain out { type filter hook output priority 0; ip6 daddr ff00::/8 drop; }; }")
	n.d = n.load()
	for _, f := range families {
		n.forwards = append(n.forwards,
			Forward{Prefix: netip.MustParsePrefix(f.cluster), Kind: overlay.Cluster},
			Forward{Prefix: f.podRange(number), Kind: overlay.PodLocal},
			Forward{Prefix: single(f.nodeAddr(number)), Kind: overlay.NodeLocal})
		n.route(nl.Route{Dst: netip.MustParsePrefix(f.cluster).Masked(), Unreachable: true, Metric: 5000})
		n.address("lo", single(f.nodeAddr(number)))
	}
	n.sync()
	return n
}

// load loads the data path for the node. It may be called again, as by a daemon
// that starts while the programs of the last one run.
func (n *node) load() *Datapath {
	n.t.Helper()
	var d *Datapath
	in(n.t, n.NS, func() (err error) {
		d, err = Load(Options{PinPath: n.pins, Links: n.Handle()})
		return err
	})
	n.t.Cleanup(func() {
		if err := d.Close(); err != nil {
			n.t.Error(err)
		}
	})
	return d
}

// nft adds rules in the language of nft(8).
func (n *node) nft(rules string) {
	n.t.Helper()
	n.Run("nft", rules)
}

func (n *node) sync() {
	n.t.Helper()
	if err := n.d.SyncForwards(n.forwards); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) route(r nl.Route) {
	n.t.Helper()
	if err := n.Handle().ReplaceRoute(r); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) link(name string) nl.Link {
	n.t.Helper()
	l, err := n.Handle().LinkByName(name)
	if err != nil {
		n.t.Fatal(err)
	}
	return l
}

func (n *node) address(device string, p netip.Prefix) {
	n.t.Helper()
	if err := n.Handle().EnsureAddress(n.link(device).Index, p); err != nil {
		n.t.Fatal(err)
	}
	awaitLocal(n.t, n.NS, p.Addr())
}

// pod is a pod of a node, with an address of each family.
type pod struct {
	*nettest.NS
	t     testing.TB
	addrs []netip.Addr // in the order of families
	mac   net.HardwareAddr
	host  nl.Link // on the node
	eth0  nl.Link // in the pod
}

func (n *node) pod(i int) *pod {
	n.t.Helper()
	p := &pod{NS: nettest.NewNS(n.t), t: n.t, mac: net.HardwareAddr{0x0a, 0x58, 10, 1, byte(n.number), byte(i)}}
	name := fmt.Sprintf("slp%d", i)
	var err error
	p.host, err = n.Handle().AddVeth(nl.Veth{
		Name: name, MAC: hostMAC, MTU: laneMTU, PeerName: "eth0", PeerMAC: p.mac, PeerNetns: p.Path,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	if p.eth0, err = p.Handle().LinkByName("eth0"); err != nil {
		n.t.Fatal(err)
	}
	in(n.t, n.NS, func() error { return n.d.AttachPod(Device{p.host.Index, name}) })
	for _, up := range []struct {
		h *nl.Handle
		l nl.Link
	}{{p.Handle(), p.eth0}, {n.Handle(), p.host}} {
		if err := up.h.SetLink(up.l.Index, nl.LinkSettings{State: nl.Up}); err != nil {
			n.t.Fatal(err)
		}
	}
	settle(n.t, p.NS, "eth0")
	settle(n.t, n.NS, name)
	for _, f := range families {
		p.join(n, f, f.podAddr(n.number, i))
	}
	return p
}

// settle has the kernel finish what follows from a device coming up. It does that
// at leisure, and until then drops what the device is to send; but whoever asks
// for the link's state gets it done first.
func settle(t testing.TB, ns *nettest.NS, device string) {
	t.Helper()
	if up := ethtool(t, ns, device, [2]uint32{unix.ETHTOOL_GLINK}); up != 1 {
		t.Fatalf("the link of %s is down", device)
	}
}

// ethtool gives a device a command with a value, as ethtool(8) does, and returns
// the value after it.
func ethtool(t testing.TB, ns *nettest.NS, device string, command [2]uint32) uint32 {
	t.Helper()
	in(t, ns, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		req := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}{data: unsafe.Pointer(&command)}
		copy(req.name[:unix.IFNAMSIZ-1], device)
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); e != 0 {
			return fmt.Errorf("ethtool %#x on %s: %w", command[0], device, e)
		}
		return nil
	})
	return command[1]
}

// join gives the pod an address, in the pod, on the node and in the data path.
func (p *pod) join(n *node, f family, addr netip.Addr) {
	p.t.Helper()
	p.addrs = append(p.addrs, addr)
	gateway := netip.MustParseAddr(f.gateway)
	all := netip.PrefixFrom(gateway, 0).Masked()
	for _, step := range []func() error{
		func() error { return p.Handle().EnsureAddress(p.eth0.Index, single(addr)) },
		func() error { return p.Handle().EnsureNeighbor(p.eth0.Index, gateway, hostMAC) },
		func() error {
			return p.Handle().ReplaceRoute(nl.Route{Dst: all, Via: gateway, Device: p.eth0.Index, Onlink: true})
		},
		func() error { return n.Handle().EnsureNeighbor(p.host.Index, addr, p.mac) },
		func() error { return n.Handle().ReplaceRoute(nl.Route{Dst: single(addr), Device: p.host.Index}) },
		func() error { return n.d.SetEndpoint(addr, Endpoint{Index: p.host.Index, MAC: p.mac}) },
		func() error { return n.d.ApplyPolicy(unguarded(addr)) },
	} {
		if err := step(); err != nil {
			p.t.Fatal(err)
		}
	}
	awaitLocal(p.t, p.NS, addr)
}

// awaitLocal waits until the kernel takes packets for a new address: for IPv6 a
// worker thread sees to that, some time after the address is there.
func awaitLocal(t testing.TB, ns *nettest.NS, addr netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	changed, err := ns.Handle().Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for {
		routes, err := ns.Handle().Routes(nl.RouteFilter{Table: unix.RT_TABLE_LOCAL})
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(routes, func(r nl.Route) bool { return r.Dst == single(addr) }) {
			return
		}
		if _, ok := <-changed; !ok {
			t.Fatalf("%s never became local", addr)
		}
	}
}

// tun is the far end of a node's lane.
type tun struct {
	*os.File
	header int // bytes before each packet: struct virtio_net_hdr or nothing
}

// addLane makes the lane to the node number peer. With offload the far end sees
// large packets and open checksums, as wireguard-go does.
func (n *node) addLane(peer int, offload bool) *tun {
	n.t.Helper()
	var far *tun
	in(n.t, n.NS, func() (err error) {
		far, err = openTUN(laneName, offload)
		return err
	})
	n.t.Cleanup(func() { _ = far.Close() })
	n.lane = n.link(laneName)
	n.Run("ip", "link", "set", laneName, "mtu", fmt.Sprint(laneMTU), "txqueuelen", roomy, "up")
	n.reach(peer, Forward{Index: n.lane.Index})
	in(n.t, n.NS, func() error { return n.d.AttachTunnel(Device{n.lane.Index, laneName}, L3) })
	settle(n.t, n.NS, laneName)
	return far
}

// reach adds routes and forwarding to a peer: through lane.Index, with the other
// fields of lane as they are.
func (n *node) reach(peer int, lane Forward) {
	n.t.Helper()
	for _, f := range families {
		pods, host := lane, lane
		pods.Prefix, pods.Kind = f.podRange(peer), overlay.PodRemote
		host.Prefix, host.Kind = single(f.nodeAddr(peer)), overlay.NodeRemote
		n.forwards = append(n.forwards, pods, host)
		n.address(laneName, single(f.nodeAddr(n.number)))
		n.route(nl.Route{Dst: pods.Prefix, Device: lane.Index, Src: f.nodeAddr(n.number)})
		// What a pod sends to a peer itself, and the stack has to forward (fragments),
		// goes through the lane too.
		n.route(nl.Route{Dst: host.Prefix, Device: lane.Index, Table: laneTable})
		if err := n.Handle().AddRule(nl.Rule{Priority: laneTable, From: f.podRange(n.number), Table: laneTable}); err != nil && !errors.Is(err, nl.ErrExists) {
			n.t.Fatal(err)
		}
	}
	n.sync()
}

// ifreqFlags is struct ifreq as TUNSETIFF wants it.
type ifreqFlags struct {
	name  [unix.IFNAMSIZ]byte
	flags uint16
	_     [22]byte
}

// virtioHeader is the length of struct virtio_net_hdr.
const virtioHeader = 10

func openTUN(name string, offload bool) (*tun, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open tun: %w", err)
	}
	t := &tun{}
	req := ifreqFlags{flags: unix.IFF_TUN | unix.IFF_NO_PI}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	if offload {
		req.flags |= unix.IFF_VNET_HDR
		t.header = virtioHeader
	}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&req))); e != 0 {
		return nil, fmt.Errorf("make tun %s: %w", name, e)
	}
	if offload {
		if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6); err != nil {
			return nil, fmt.Errorf("set offload of tun %s: %w", name, err)
		}
	}
	t.File = os.NewFile(uintptr(fd), name) // after TUNSETIFF: before it the file cannot be polled
	return t, nil
}

// pair is two nodes with a lane between them.
func pair(t testing.TB) (a, b *node) {
	t.Helper()
	a, b = newNode(t, 1), newNode(t, 2)
	splice(t, a.addLane(2, true), b.addLane(1, true))
	return a, b
}

// splice carries packets between two far ends, headers and all: what a WireGuard
// process does, less the encryption. It ends when the files are closed.
func splice(t testing.TB, a, b *tun) {
	t.Helper()
	for _, way := range [][2]*tun{{a, b}, {b, a}} {
		go func() {
			buf := make([]byte, 1<<17)
			for {
				size, err := way[0].Read(buf)
				if err != nil {
					return
				}
				if _, err := way[1].Write(buf[:size]); err != nil {
					return
				}
			}
		}()
	}
}

// unguarded gives a pod's address a guard that no policy has a say in.
func unguarded(addr netip.Addr) policy.Changes {
	return policy.Changes{Set: policy.Tables{Endpoints: map[netip.Addr]policy.EndpointPolicy{addr: {}}}}
}
