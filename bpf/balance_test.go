// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/overlay/service"
	"github.com/sealane/sealane/policy"
)

// hostnet does for a pair what overlay/hostnet does: what pods send to a peer's
// node or to the outside has the node's address, and finds its way back.
func hostnet(nodes ...*node) {
	for _, n := range nodes {
		var rules strings.Builder
		rules.WriteString("table inet hostnet { chain post { type nat hook postrouting priority srcnat - 1;\n")
		for _, f := range families {
			ip := map[string]string{"IPv4": "ip", "IPv6": "ip6"}[f.name]
			fmt.Fprintf(&rules, "  %s saddr %s %s daddr != %s masquerade\n", ip, f.podRange(n.number), ip, f.cluster)
			for _, peer := range nodes {
				if peer != n {
					n.route(nl.Route{Dst: single(f.nodeAddr(peer.number)), Device: n.lane.Index, Src: f.nodeAddr(n.number)})
				}
			}
		}
		rules.WriteString(" }\n}\n")
		n.nft(rules.String())
	}
}

// balanced are two nodes and somebody outside, with servers everywhere, and no
// kube-proxy: whatever gets to a service's backend got there by the programs.
type balanced struct {
	a, b                  *node
	client, local, remote *pod
	outside               *nettest.NS
}

func newBalanced(t *testing.T) balanced {
	t.Helper()
	a, b := pair(t)
	s := balanced{a: a, b: b, client: a.pod(2), local: a.pod(3), remote: b.pod(2), outside: a.uplink("eth0")}
	hostnet(a, b)
	for i, f := range families {
		serve(t, s.client.NS, port(s.client.addrs[i], 7))
		serve(t, s.local.NS, port(s.local.addrs[i], 7))
		serve(t, s.remote.NS, port(s.remote.addrs[i], 7))
		serve(t, a.NS, port(f.nodeAddr(1), 7))
		serve(t, b.NS, port(f.nodeAddr(2), 7))
		serve(t, s.outside, port(f.outsideAddr(), 7))
	}
	return s
}

// offer makes a service of TCP and UDP.
func offer(t testing.TB, d *Datapath, at netip.AddrPort, backends ...netip.AddrPort) {
	t.Helper()
	set := map[service.Frontend]service.Service{}
	for _, protocol := range []uint8{protoTCP, protoUDP} {
		set[service.Frontend{Address: at, Protocol: protocol}] = service.Service{Backends: backends}
	}
	if err := d.ApplyServices(set, nil); err != nil {
		t.Fatal(err)
	}
}

// TestPrivilegedBalanced: the client's sockets take answers from the service's
// address only, so each echo was translated both ways.
func TestPrivilegedBalanced(t *testing.T) {
	s := newBalanced(t)
	short := func(p ...Path) []Path { return p }
	stack := short(PathStackOut, PathStackIn)
	each(t, func(t *testing.T, i int, f family) {
		for _, tc := range []struct {
			name    string
			backend netip.AddrPort
			paths   []Path
		}{
			{"beside the client", port(s.local.addrs[i], 7), short(PathLocal)},
			{"on the other node", port(s.remote.addrs[i], 7), short(PathLaneOut, PathLaneIn)},
			{"the client itself", port(s.client.addrs[i], 7), short(PathLocal)},
			{"the own node", port(f.nodeAddr(1), 7), stack},
			{"the other node", port(f.nodeAddr(2), 7), stack},
			{"outside", port(f.outsideAddr(), 7), stack},
		} {
			t.Run(tc.name, func(t *testing.T) {
				at := port(f.service(50), 80)
				offer(t, s.a.d, at, tc.backend)
				c := counted(t, s.a.d, func() { echoTCP(t, s.client.NS, at, large) })
				wantPaths(t, c, tc.paths...)
				if tc.paths[0] != PathStackOut {
					wantLargeSegments(t, c.Paths[tc.paths[0]])
				}
				wantPaths(t, counted(t, s.a.d, func() { echoUDP(t, s.client.NS, at, 1, 100, mtu) }), tc.paths...)
				fragments := stack // are the stack's, but for the pod's own
				if tc.backend.Addr() == s.client.addrs[i] {
					fragments = tc.paths
				}
				if f.name == "IPv6" && tc.name == "outside" {
					fragments = nil // the answer meets a smaller MTU, and no router fragments
				}
				if fragments != nil {
					wantPaths(t, counted(t, s.a.d, func() { echoUDP(t, s.client.NS, at, 5000, 60000) }), fragments...)
				}
			})
		}
	})
}

// TestPrivilegedBalancedSoftwareChecksums: whoever computes checksums by itself
// makes the receiver's device keep a sum over the whole packet, beside what is
// changed in it.
func TestPrivilegedBalancedSoftwareChecksums(t *testing.T) {
	for _, outer := range families {
		t.Run("over "+outer.name, func(t *testing.T) {
			a, b, _ := vxlanPair(t, outer)
			client, backend := a.pod(2), b.pod(2)
			for _, device := range []string{"eth0", laneName} {
				ethtool(t, a.NS, device, [2]uint32{unix.ETHTOOL_STXCSUM, 0})
				ethtool(t, b.NS, device, [2]uint32{unix.ETHTOOL_STXCSUM, 0})
			}
			for _, p := range []*pod{client, backend} {
				ethtool(t, p.NS, "eth0", [2]uint32{unix.ETHTOOL_STXCSUM, 0})
			}
			each(t, func(t *testing.T, i int, f family) {
				at := port(f.service(54), 80)
				offer(t, a.d, at, port(backend.addrs[i], 7))
				serve(t, backend.NS, port(backend.addrs[i], 7))
				echoUDP(t, client.NS, at, 1, 99, 100, mtu, 5000)
				echoTCP(t, client.NS, at, large)
			})
		})
	}
}

// TestPrivilegedBalancedPolicy: the sender's policies see the backend, and those
// of the backend see the client.
func TestPrivilegedBalancedPolicy(t *testing.T) {
	s := newBalanced(t)
	each(t, func(t *testing.T, i int, f family) {
		local, remote := port(f.service(55), 80), port(f.service(56), 80)
		offer(t, s.a.d, local, port(s.local.addrs[i], 7))
		offer(t, s.a.d, remote, port(s.remote.addrs[i], 7))
		guard(t, s.a, policy.Tables{
			Identities: map[netip.Addr]policy.PeerID{s.local.addrs[i]: 31, s.remote.addrs[i]: 32},
			Endpoints:  map[netip.Addr]policy.EndpointPolicy{s.client.addrs[i]: {Egress: 11, DryRunEgress: 11}},
			Sets:       map[policy.SetID]policy.Set{11: {}},
			Rules:      map[policy.Rule]policy.PortsID{{Set: 11, Peer: 32}: 21},
			Ports:      map[policy.PortsID][]policy.Ports{21: {{Protocol: protoTCP, First: 7, Last: 7}, {Protocol: protoUDP, First: 7, Last: 7}}},
		})
		echoTCP(t, s.client.NS, remote, 1000)
		echoUDP(t, s.client.NS, remote, 100, 5000)
		awaitDrop(t, s.a.d, ReasonPolicyEgress, func() { sendUDP(t, s.client.NS, port(s.client.addrs[i], 0), local, "no") })
		only := policy.Tables{
			Identities: map[netip.Addr]policy.PeerID{s.client.addrs[i]: 33},
			Endpoints:  map[netip.Addr]policy.EndpointPolicy{s.remote.addrs[i]: {Ingress: 12, DryRunIngress: 12}},
			Sets:       map[policy.SetID]policy.Set{12: {}},
			Rules:      map[policy.Rule]policy.PortsID{{Set: 12, Peer: 33}: policy.AllPorts},
		}
		guard(t, s.b, only)
		echoTCP(t, s.client.NS, remote, 1000)
		echoUDP(t, s.client.NS, remote, 100, 5000)
		only.Identities = map[netip.Addr]policy.PeerID{s.client.addrs[i]: 34}
		guard(t, s.b, only)
		awaitDrop(t, s.b.d, ReasonPolicyIngress, func() { sendUDP(t, s.client.NS, port(s.client.addrs[i], 0), remote, "no") })
		guard(t, s.a, policy.Tables{})
		guard(t, s.b, policy.Tables{})
	})
}

// guard gives a node tables; its pods without guard in them get one in which no
// policy has a say.
func guard(t testing.TB, n *node, tables policy.Tables) {
	t.Helper()
	endpoints, err := n.d.Endpoints()
	if err != nil {
		t.Fatal(err)
	}
	guards := map[netip.Addr]policy.EndpointPolicy{}
	for a := range endpoints {
		guards[a] = tables.Endpoints[a]
	}
	tables.Endpoints = guards
	if err := n.d.SyncPolicy(tables); err != nil {
		t.Fatal(err)
	}
}

// TestPrivilegedBalancedPortUsedTwice sends from one port to a backend directly
// and by way of its service.
func TestPrivilegedBalancedPortUsedTwice(t *testing.T) {
	s := newBalanced(t)
	each(t, func(t *testing.T, i int, f family) {
		for name, backend := range map[string]netip.AddrPort{
			"local": port(s.local.addrs[i], 7), "remote": port(s.remote.addrs[i], 7), "outside": port(f.outsideAddr(), 7), "node": port(f.nodeAddr(2), 7),
		} {
			t.Run(name, func(t *testing.T) {
				at, other := port(f.service(57), 80), port(f.service(58), 81)
				offer(t, s.a.d, at, backend)
				offer(t, s.a.d, other, backend)
				for n, to := range []netip.AddrPort{backend, at, backend, other, at, at} {
					c := dialFrom(t, s.client.NS, "udp", port(s.client.addrs[i], 3334), to)
					exchange(t, c, 100+n)
					if err := c.Close(); err != nil {
						t.Fatal(err)
					}
					if name == "outside" || name == "node" {
						continue // connection tracking is slower to believe that a port is free
					}
					c = dialFrom(t, s.client.NS, "tcp", port(s.client.addrs[i], 3333), to)
					exchange(t, c, 100+n)
					abort(t, c)
				}
			})
		}
	})
}

// TestPrivilegedBalancedForgottenFlows empties the table of flows under running traffic.
func TestPrivilegedBalancedForgottenFlows(t *testing.T) {
	s := newBalanced(t)
	each(t, func(t *testing.T, i int, f family) {
		for name, backend := range map[string]netip.AddrPort{
			"local": port(s.local.addrs[i], 7), "remote": port(s.remote.addrs[i], 7), "itself": port(s.client.addrs[i], 7),
			"node": port(f.nodeAddr(2), 7), "outside": port(f.outsideAddr(), 7),
		} {
			offer(t, s.a.d, port(f.service(59), 80), backend)
			for _, network := range []string{"tcp", "udp"} {
				t.Run(name+" "+network, func(t *testing.T) {
					c := dial(t, s.client.NS, network, port(f.service(59), 80))
					for range 5 {
						exchange(t, c, 1000)
						forgetFlows(t, s.a.d)
						forgetFlows(t, s.b.d)
					}
				})
			}
		}
	})
}

// TestPrivilegedBalancedBackendGone: UDP goes to another backend at once, and a
// TCP connection to the one that it has as long as that is there.
func TestPrivilegedBalancedBackendGone(t *testing.T) {
	s := newBalanced(t)
	each(t, func(t *testing.T, i int, f family) {
		at := port(f.service(60), 80)
		offer(t, s.a.d, at, port(s.remote.addrs[i], 7))
		udp, tcp := dial(t, s.client.NS, "udp", at), dial(t, s.client.NS, "tcp", at)
		exchange(t, udp, 100)
		exchange(t, tcp, 100)
		offer(t, s.a.d, at, port(s.local.addrs[i], 7))
		wantPaths(t, counted(t, s.a.d, func() { exchange(t, udp, 100) }), PathLocal)
		wantPaths(t, counted(t, s.a.d, func() { exchange(t, tcp, 100) }), PathLaneOut, PathLaneIn)
	})
}
