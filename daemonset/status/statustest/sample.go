// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package statustest

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/overlay/backend"
)

// Now returns when the samples were reported.
func Now() time.Time { return time.Date(2026, 8, 22, 12, 0, 0, 0, time.UTC) }

// PublicKey returns the public key of node i.
func PublicKey(i int) string { return strings.Repeat(string(rune('a'+i)), 43) + "=" }

func issued(i int) status.Certificate {
	return status.Certificate{
		Serial: fmt.Sprintf("5e%02dc0ffee", i), Issuer: "CN=Sealane Node CA", NotBefore: Now().Add(-2 * time.Hour),
		NotAfter: Now().Add(time.Duration(150+i) * time.Hour), RenewAt: Now().Add(96 * time.Hour),
	}
}

// healthy is node i of a cluster of n that is as it should be.
func healthy(i, n int) status.Node {
	node := status.Node{
		Name: fmt.Sprint("n", i), UID: fmt.Sprint("uid-", i), Version: "v0.1.0", Time: Now(), Ready: true,
		Encapsulation:   status.Encapsulation{Kind: "wireguard", Backend: backend.UserSpace, MTU: 1420, Devices: []status.Device{{Name: "sealane-wg11", Port: 51874}}},
		Certificate:     issued(i),
		BundleHash:      strings.Repeat("ab", 32),
		Key:             status.Key{Generation: 1, PublicKey: PublicKey(i), Since: Now().Add(-2 * time.Hour)},
		Statement:       status.Statement{Sequence: 1787400000000, IssuedAt: Now().Add(-time.Hour), NotAfter: Now().Add(71 * time.Hour)},
		Rotation:        status.Rotation{State: "steady", Since: Now().Add(-90 * time.Minute), Reason: "scheduled"},
		PostQuantum:     "required",
		Pairings:        []status.Pairing{{Role: "client", Result: "agreed", Count: 3}, {Role: "client", Result: "unreachable", Count: 2}},
		ClusterPodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd44::/56")},
		PodCIDRs:        []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", i)), netip.MustParsePrefix(fmt.Sprintf("fd44:0:0:%d::/64", i))},
		Pods:            10 + i,
		Addresses:       []status.AddressUse{{Family: "ipv4", Used: uint64(10 + i), Size: 253}, {Family: "ipv6", Used: uint64(10 + i), Size: 1<<63 - 1}},
		Drops:           []status.Drop{{Reason: "malformed", Packets: 0, Bytes: 0}, {Reason: "no_lane", Packets: 0, Bytes: 0}, {Reason: "leak_egress", Packets: 0, Bytes: 0}},
		Paths:           []status.Traffic{{Path: "local", Packets: 12, Bytes: 1200}, {Path: "lane_out", Packets: 3456, Bytes: 3 << 20}},
		Uplinks:         []string{"eth0"},
		Clear:           []string{"node to node"},
	}
	for j := 1; j <= n; j++ {
		if j == i {
			continue
		}
		vouched := issued(j)
		vouched.RenewAt = time.Time{}
		node.Peers = append(node.Peers, status.Peer{
			Name: fmt.Sprint("n", j), UID: fmt.Sprint("uid-", j), State: status.Connected, Generation: 1, PublicKey: PublicKey(j), Preshared: true, GenerationPairs: 1,
			Endpoint: fmt.Sprintf("172.30.0.%d:51874", j), LastHandshake: Now().Add(-12 * time.Second),
			RxBytes: 1 << 20 * uint64(j), TxBytes: 1536 * uint64(j), Certificate: vouched, StatementNotAfter: Now().Add(70 * time.Hour),
		})
	}
	return node
}

// Cluster returns a cluster of n nodes that is as it should be.
func Cluster(n int) status.Cluster {
	var c status.Cluster
	for i := 1; i <= n; i++ {
		c.Nodes = append(c.Nodes, healthy(i, n))
	}
	return c
}

// Full returns a report in which no field is zero.
func Full() status.Node {
	n := healthy(1, 2)
	n.NotReadyReasons, n.FromDisk = []string{"no certificate"}, true
	n.Encapsulation.Plaintext = true
	n.BundleRefused = "nobody vouches for it"
	n.Revocations = status.Revocations{Number: 1787400000123, IssuedAt: Now().Add(-30 * time.Minute), Revoked: "keyCompromise"}
	n.Peers[0].Reason = "no answer"
	n.Peers[0].Grace = true
	n.Rotation = status.Rotation{State: "published", Since: Now().Add(-time.Minute), Reason: "requested", Waiting: []string{"n2"}, Overdue: true}
	n.Peers[0].Certificate.RenewAt = Now()
	n.Refused = []status.Refusal{{Node: "n2", Reason: "signature", Message: "invalid signature", Count: 3, Last: Now().Add(-5 * time.Minute)}}
	n.ContinuityWarnings = []status.Refusal{{Node: "n2", Reason: "continuity", Message: "new key", Count: 1, Last: Now().Add(-time.Minute)}}
	n.RefusedAddresses = []status.Refusal{{Node: "n2", Reason: "address", Message: "address 192.0.2.9 is not in the node's certificate", Count: 1, Last: Now().Add(-time.Minute)}}
	n.QueuedDels = 2
	n.Enforcement = status.Enforcement{
		Enforcing: true, Problem: "policies are not all in the data path", Identities: 100, Blocks: 4, EndpointPolicies: 11, Sets: 3, Rules: 25, PortSets: 5,
		Frontends: 40, Backends: 90, Waiting: 1, RefusedPods: 1, Writes: 17, FailedWrites: 2, Written: Now().Add(-time.Second), LastWrite: 0.0015,
	}
	for _, delay := range []float64{.0005, .004, .25, 30} {
		n.Enforcement.Delay.Observe(delay)
	}
	n.Drops = []status.Drop{{Reason: "spoofed_source", Packets: 7, Bytes: 700}}
	n.DryRunDrops = []status.Drop{{Reason: "policy_egress", Packets: 3, Bytes: 180}}
	n.LastLeak = &status.Leak{Source: netip.MustParseAddr("10.244.1.5"), Destination: netip.MustParseAddr("10.244.2.6"), Device: "eth0", Reason: "leak_egress"}
	return n
}

// Plaintext returns a cluster of n nodes whose lanes are not encrypted.
func Plaintext(n int) status.Cluster {
	c := Cluster(n)
	for i := range c.Nodes {
		node := &c.Nodes[i]
		node.Encapsulation = status.Encapsulation{Kind: "vxlan", Backend: backend.Kernel, Plaintext: true, MTU: 1450, Devices: []status.Device{{Name: "sealane-vx", Port: 4789}}}
		node.Certificate, node.Key, node.Statement = status.Certificate{}, status.Key{}, status.Statement{}
		for k := range node.Peers {
			p := &node.Peers[k]
			*p = status.Peer{Name: p.Name, UID: p.UID, State: status.Connected, Endpoint: strings.TrimSuffix(p.Endpoint, ":51874"), RxBytes: p.RxBytes, TxBytes: p.TxBytes}
		}
	}
	return c
}

// Troubled returns a cluster that has one of each thing that people must see.
func Troubled() status.Cluster {
	c := Cluster(3)
	c.Silent = []status.Silent{{Name: "n4", Problem: "no agent pod"}}
	a, b, d := &c.Nodes[0], &c.Nodes[1], &c.Nodes[2]
	a.Peers[0].State, a.Peers[0].Reason = status.HandshakePending, "no answer for 3m"
	a.Peers[1].PublicKey = PublicKey(25)
	a.Refused = []status.Refusal{{Node: "n2", Reason: "signature", Message: "invalid signature\x1b[2J", Count: 3, Last: Now().Add(-5 * time.Minute)}}
	a.Revocations = status.Revocations{Number: 1787400000123, IssuedAt: Now().Add(-time.Minute)}
	b.Ready, b.NotReadyReasons = false, []string{"no certificate yet", "waiting for the controller"}
	b.Uplinks = nil
	b.Peers[1].Grace = true
	b.Certificate.NotAfter = Now().Add(-3 * time.Hour)
	b.Statement.NotAfter = Now().Add(-time.Minute)
	d.Revocations = status.Revocations{Number: 1787400000123, IssuedAt: Now().Add(-time.Minute), Revoked: "keyCompromise"}
	b.Peers[0].State, b.Peers[0].Reason = status.Revoked, "keyCompromise"
	d.Certificate.RenewAt = Now().Add(-5 * time.Hour)
	d.BundleHash = strings.Repeat("cd", 32)
	d.Drops = []status.Drop{{Reason: "no_lane", Packets: 4, Bytes: 4096}, {Reason: "leak_egress", Packets: 2, Bytes: 168}}
	d.LastLeak = &status.Leak{Source: netip.MustParseAddr("10.244.3.5"), Destination: netip.MustParseAddr("192.0.2.6"), Device: "eth0", Reason: "leak_egress"}
	return c
}
