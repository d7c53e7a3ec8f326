// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build kernels

package kernels

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/cni/ipam"
	"github.com/sealane/sealane/cni/podnet"
	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/keytest"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/overlay/hostnet"
	"github.com/sealane/sealane/overlay/vxlan"
	"github.com/sealane/sealane/overlay/wireguard"
	"github.com/sealane/sealane/policy"
)

const (
	underlay    = 1500 // MTU, bytes
	uplinkName  = "eth0"
	clusterPods = "10.1.0.0/16,fd00:1::/48"
)

func prefixes(list string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range split(list) {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func addresses(list string) []netip.Addr {
	var all []netip.Addr
	for _, text := range split(list) {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// node is a node of a cluster of two, with everything of the daemon but its loops.
type node struct {
	t        testing.TB
	ns       *nettest.NS
	id       *keytest.Node
	kind     overlay.Kind
	datapath *bpf.Datapath
	lanes    overlay.Backend
	host     *hostnet.Host
	pods     int
	mtu      int
}

// twoNodes gives nodes 1 and 2, connected by a wire, their lanes up.
func twoNodes(t testing.TB, kind overlay.Kind) (*node, *node) {
	t.Helper()
	nettest.Privileged(t)
	cluster := keytest.NewCluster(t)
	a, b := newNode(t, cluster, 1, kind), newNode(t, cluster, 2, kind)
	nettest.Wire(t, a.end(), b.end())
	peers := []overlay.Peer{a.seenBy(cluster, "n2"), b.seenBy(cluster, "n1")}
	a.connect(peers[1])
	b.connect(peers[0])
	return a, b
}

func newNode(t testing.TB, cluster *keytest.Cluster, number int, kind overlay.Kind) *node {
	t.Helper()
	n := &node{t: t, ns: nettest.NewNS(t), kind: kind}
	n.id = cluster.Node(fmt.Sprintf("n%d", number), fmt.Sprintf("10.1.%d.0/24", number), fmt.Sprintf("fd00:1:0:%d::/64", number))
	n.id.Live.Addresses = addresses(fmt.Sprintf("192.0.2.%d,2001:db8::%[1]d", number))
	n.id.Input.Endpoints = n.id.Live.Addresses
	links := n.ns.Handle()
	n.do(func() (err error) {
		n.datapath, err = bpf.Load(bpf.Options{PinPath: nettest.BPFFS(t), Links: links})
		return err
	})
	t.Cleanup(func() {
		if err := n.datapath.Close(); err != nil {
			t.Error(err)
		}
	})
	n.do(func() (err error) {
		n.host, err = hostnet.New(links, slog.New(slog.DiscardHandler))
		return err
	})
	n.lanes = n.backend()
	return n
}

func (n *node) backend() overlay.Backend {
	if n.kind == overlay.VXLAN {
		return vxlan.New(n.ns.Handle())
	}
	key := func(generation uint64) (keymgr.PrivateKey, bool) {
		own := n.id.Input.Keys[0]
		return own.Private, own.Generation == generation
	}
	b, err := wireguard.New(wireguard.Options{Links: n.ns.Handle(), Key: key, Socket: "/none", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = b.Close() })
	if mode := b.Mode(); mode != "kernel" {
		n.t.Fatalf("lanes would be served in mode %q, not by the kernel", mode)
	}
	return b
}

// do runs f in the node's namespace.
func (n *node) do(f func() error) {
	n.t.Helper()
	var err error
	n.ns.Do(func() { err = f() })
	if err != nil {
		n.t.Fatalf("%s: %v", n.id.Live.ID.Name, err)
	}
}

func (n *node) end() nettest.End {
	own := n.id.Live.Addresses
	return nettest.End{NS: n.ns, Name: uplinkName, Addresses: []netip.Prefix{netip.PrefixFrom(own[0], 24), netip.PrefixFrom(own[1], 64)}}
}

// seenBy is what a verified statement of the node makes of it on another one.
func (n *node) seenBy(cluster *keytest.Cluster, reader string) overlay.Peer {
	n.t.Helper()
	p, err := cluster.Verifier(reader).Verify(n.id.Sign(), n.id.Live)
	if err != nil {
		n.t.Fatal(err)
	}
	return overlay.Peer{ID: p.ID, Keys: p.Keys, Endpoint: p.Endpoints[0], Addresses: n.id.Live.Addresses, PodCIDRs: p.PodCIDRs}
}

// connect plans for the peer and applies the plan in the daemon's order.
func (n *node) connect(peer overlay.Peer) {
	n.t.Helper()
	peer.Pairs = []rotation.WantedPair{{
		Pair:     rotation.Pair{Own: n.id.Input.Keys[0].Generation, Peer: peer.Keys[0].Generation()},
		Initiate: n.id.Live.ID.UID < peer.ID.UID,
	}}
	if n.kind == overlay.VXLAN {
		peer.Keys, peer.Pairs = nil, nil
	}
	plan, err := overlay.Compute(overlay.Config{
		Kind: n.kind, AllowPlaintext: true, Self: n.id.Live.ID, Generations: []uint64{n.id.Input.Keys[0].Generation},
		Addresses: n.id.Live.Addresses, PodCIDRs: n.id.Live.PodCIDRs, ClusterCIDRs: prefixes(clusterPods), UnderlayMTU: underlay,
	}, []overlay.Peer{peer})
	if err != nil {
		n.t.Fatal(err)
	}
	n.mtu = plan.MTU
	n.do(func() error { return n.datapath.AttachUplink(n.device(uplinkName), bpf.L2) })
	bare := plan
	bare.Tunnels = slices.Clone(plan.Tunnels)
	for i := range bare.Tunnels {
		bare.Tunnels[i].Peers = nil
	}
	n.do(func() error { return n.lanes.Apply(n.t.Context(), bare) })
	n.do(func() error { return n.datapath.SyncForwards(n.attachLanes(plan)) })
	n.do(func() error { return n.host.Apply(n.t.Context(), plan) })
	n.do(func() error { return n.lanes.Apply(n.t.Context(), plan) })
}

// attachLanes puts the programs on the lanes, and gives the forwarding table.
func (n *node) attachLanes(plan overlay.Plan) []bpf.Forward {
	e := bpf.L3
	if n.kind == overlay.VXLAN {
		e = bpf.L2
	}
	index := map[string]int{}
	for _, l := range plan.Tunnels {
		dev := n.device(l.Device)
		index[l.Device] = dev.Index
		if err := n.datapath.AttachTunnel(dev, e); err != nil {
			n.t.Error(err)
		}
	}
	var all []bpf.Forward
	for _, f := range plan.Forward {
		all = append(all, bpf.Forward{
			Prefix: f.Prefix, Kind: f.Kind, Index: index[f.Device], Encapsulation: e, Remote: f.Remote,
		})
	}
	return all
}

func (n *node) device(name string) bpf.Device {
	l, err := n.ns.Handle().LinkByName(name)
	if err != nil {
		n.t.Errorf("find device: %v", err)
	}
	return bpf.Device{Index: l.Index, Name: name}
}

// pod is a pod of a node.
type pod struct {
	ns        *nettest.NS
	addresses []netip.Addr
}

// pod connects one more pod, as an ADD does.
func (n *node) pod() pod {
	n.t.Helper()
	n.pods++
	p := pod{ns: nettest.NewNS(n.t)}
	for _, r := range n.id.Live.PodCIDRs {
		a := r.Addr().AsSlice()
		a[len(a)-1] = byte(1 + n.pods)
		addr, _ := netip.AddrFromSlice(a)
		p.addresses = append(p.addresses, addr)
	}
	owner := ipam.Owner{ContainerID: p.ns.Name, IfName: "eth0"}
	spec := podnet.Spec{
		Owner: owner, Netns: p.ns.Path, IfName: "eth0", HostIfName: podnet.HostName(owner), Addresses: p.addresses, MTU: n.mtu,
	}
	made, err := podnet.Connect(n.t.Context(), n.ns.Handle(), spec)
	if err != nil {
		n.t.Fatal(err)
	}
	n.do(func() error { return n.datapath.AttachPod(bpf.Device{Index: made.HostIndex, Name: spec.HostIfName}) })
	for _, a := range p.addresses {
		if err := n.datapath.SetEndpoint(a, bpf.Endpoint{Index: made.HostIndex, MAC: made.PodMAC}); err != nil {
			n.t.Fatal(err)
		}
		// No policy has a say; a pod that nothing is known of would get nothing.
		none := policy.Tables{Endpoints: map[netip.Addr]policy.EndpointPolicy{a: {}}}
		if err := n.datapath.ApplyPolicy(policy.Changes{Set: none}); err != nil {
			n.t.Fatal(err)
		}
	}
	return p
}

// counted gives how many packets took a way, or were dropped for a reason.
func (n *node) counted() bpf.Counters {
	n.t.Helper()
	c, err := n.datapath.Counters()
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}
