// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package status

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/sealane/sealane/overlay/backend"
)

var now = time.Date(2026, 8, 22, 12, 0, 0, 0, time.UTC)

func publicKey(i int) string { return strings.Repeat(string(rune('a'+i)), 43) + "=" }

func issued(i int) Certificate {
	return Certificate{
		Serial: fmt.Sprintf("5e%02dc0ffee", i), Issuer: "CN=Sealane Node CA", NotBefore: now.Add(-2 * time.Hour),
		NotAfter: now.Add(time.Duration(150+i) * time.Hour), RenewAt: now.Add(96 * time.Hour),
	}
}

// healthy is node i of a cluster of n that is as it should be.
func healthy(i, n int) Node {
	node := Node{
		Name: fmt.Sprint("n", i), UID: fmt.Sprint("uid-", i), Version: "v0.1.0", Time: now, Ready: true,
		Lane:            Lane{Kind: "wireguard", Backend: backend.UserSpace, MTU: 1420, Devices: []Device{{"sealane-wg11", 51874}}},
		Certificate:     issued(i),
		BundleHash:      strings.Repeat("ab", 32),
		Key:             Key{Generation: 1, PublicKey: publicKey(i), Since: now.Add(-2 * time.Hour)},
		Statement:       Statement{Sequence: 1787400000000, IssuedAt: now.Add(-time.Hour), NotAfter: now.Add(71 * time.Hour)},
		Rotation:        Rotation{State: "steady", Since: now.Add(-90 * time.Minute), Reason: "scheduled"},
		PostQuantum:     "required",
		Pairings:        []Pairing{{"client", "agreed", 3}, {"client", "unreachable", 2}},
		ClusterPodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd44::/56")},
		PodCIDRs:        []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", i)), netip.MustParsePrefix(fmt.Sprintf("fd44:0:0:%d::/64", i))},
		Pods:            10 + i,
		Addresses:       []AddressUse{{"ipv4", uint64(10 + i), 253}, {"ipv6", uint64(10 + i), 1<<63 - 1}},
		Drops:           []Drop{{"malformed", 0, 0}, {"no_lane", 0, 0}, {"leak_egress", 0, 0}},
		Paths:           []Traffic{{"local", 12, 1200}, {"lane_out", 3456, 3 << 20}},
		Uplinks:         []string{"eth0"},
		Clear:           []string{"node to node"},
	}
	for j := 1; j <= n; j++ {
		if j == i {
			continue
		}
		vouched := issued(j)
		vouched.RenewAt = time.Time{}
		node.Peers = append(node.Peers, Peer{
			Name: fmt.Sprint("n", j), UID: fmt.Sprint("uid-", j), State: Connected, Generation: 1, PublicKey: publicKey(j), Preshared: true, Lanes: 1,
			Endpoint: fmt.Sprintf("172.30.0.%d:51874", j), LastHandshake: now.Add(-12 * time.Second),
			RxBytes: 1 << 20 * uint64(j), TxBytes: 1536 * uint64(j), Certificate: vouched, StatementNotAfter: now.Add(70 * time.Hour),
		})
	}
	return node
}

func cluster(n int) Cluster {
	var c Cluster
	for i := 1; i <= n; i++ {
		c.Nodes = append(c.Nodes, healthy(i, n))
	}
	return c
}

// full is a report in which no field is zero.
func full() Node {
	n := healthy(1, 2)
	n.NotReadyReasons, n.FromDisk = []string{"no certificate"}, true
	n.Lane.Plaintext = true
	n.Revocations = Revocations{1787400000123, now.Add(-30 * time.Minute), "keyCompromise"}
	n.Peers[0].Reason = "no answer"
	n.Peers[0].Grace = true
	n.Rotation = Rotation{State: "published", Since: now.Add(-time.Minute), Reason: "requested", Waiting: []string{"n2"}, Overdue: true}
	n.Peers[0].Certificate.RenewAt = now
	n.Refused = []Refusal{{"n2", "signature", "invalid signature", 3, now.Add(-5 * time.Minute)}}
	n.Discontinuities = []Refusal{{"n2", "continuity", "new key", 1, now.Add(-time.Minute)}}
	n.QueuedDels = 2
	n.Enforcement = Enforcement{
		Enforcing: true, Problem: "policies are not all in the data path", Identities: 100, Blocks: 4, Guards: 11, Sets: 3, Rules: 25, PortSets: 5,
		Frontends: 40, Backends: 90, Waiting: 1, RefusedPods: 1, Writes: 17, FailedWrites: 2, Written: now.Add(-time.Second), LastWrite: 0.0015,
	}
	for _, delay := range []float64{.0005, .004, .25, 30} {
		n.Enforcement.Delay.Observe(delay)
	}
	n.Drops = []Drop{{"spoofed_source", 7, 700}}
	n.Trials = []Drop{{"policy_egress", 3, 180}}
	n.LastLeak = &Leak{netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("10.244.2.6"), "eth0", "leak_egress"}
	return n
}

func plaintext(n int) Cluster {
	c := cluster(n)
	for i := range c.Nodes {
		node := &c.Nodes[i]
		node.Lane = Lane{Kind: "vxlan", Backend: backend.Kernel, Plaintext: true, MTU: 1450, Devices: []Device{{"sealane-vx", 4789}}}
		node.Certificate, node.Key, node.Statement = Certificate{}, Key{}, Statement{}
		for k := range node.Peers {
			p := &node.Peers[k]
			*p = Peer{Name: p.Name, UID: p.UID, State: Connected, Endpoint: strings.TrimSuffix(p.Endpoint, ":51874"), RxBytes: p.RxBytes, TxBytes: p.TxBytes}
		}
	}
	return c
}

// troubled has one of each thing that people must see.
func troubled() Cluster {
	c := cluster(3)
	c.Silent = []Silent{{"n4", "no agent pod"}}
	a, b, d := &c.Nodes[0], &c.Nodes[1], &c.Nodes[2]
	a.Peers[0].State, a.Peers[0].Reason = HandshakePending, "no answer for 3m"
	a.Peers[1].PublicKey = publicKey(25)
	a.Refused = []Refusal{{"n2", "signature", "invalid signature\x1b[2J", 3, now.Add(-5 * time.Minute)}}
	a.Revocations = Revocations{Number: 1787400000123, IssuedAt: now.Add(-time.Minute)}
	b.Ready, b.NotReadyReasons = false, []string{"no certificate yet", "waiting for the controller"}
	b.Uplinks = nil
	b.Peers[1].Grace = true
	b.Certificate.NotAfter = now.Add(-3 * time.Hour)
	b.Statement.NotAfter = now.Add(-time.Minute)
	d.Revocations = Revocations{1787400000123, now.Add(-time.Minute), "keyCompromise"}
	b.Peers[0].State, b.Peers[0].Reason = Revoked, "keyCompromise"
	d.Certificate.RenewAt = now.Add(-5 * time.Hour)
	d.BundleHash = strings.Repeat("cd", 32)
	d.Drops = []Drop{{"no_lane", 4, 4096}, {"leak_egress", 2, 168}}
	d.LastLeak = &Leak{netip.MustParseAddr("10.244.3.5"), netip.MustParseAddr("192.0.2.6"), "eth0", "leak_egress"}
	return c
}
