// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package status_test

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/daemonset/status/statustest"
	"github.com/sealane/sealane/overlay/backend"
)

func TestJudge(t *testing.T) {
	const threeOfThree = "3 of 3 nodes ready, 6 of 6 lanes up"
	for _, tc := range []struct {
		name   string
		change func(*status.Cluster)
		want   status.Verdict
	}{
		{
			"all well", func(*status.Cluster) {},
			status.Verdict{State: status.Encrypted, Summary: "encrypted: " + threeOfThree + ", wireguard (user-space), first certificate expires in 6d"},
		},
		{
			"two backends", func(c *status.Cluster) { c.Nodes[0].Encapsulation.Backend = backend.Kernel },
			status.Verdict{State: status.Encrypted, Summary: "encrypted: " + threeOfThree + ", wireguard (kernel) and wireguard (user-space), first certificate expires in 6d"},
		},
		{
			"nobody", func(c *status.Cluster) { *c = status.Cluster{} },
			status.Verdict{State: status.Unknown, Summary: "UNKNOWN: there is no node to ask"},
		},
		{
			"one plaintext node counts as all", func(c *status.Cluster) { c.Nodes[1].Encapsulation.Plaintext = true },
			status.Verdict{State: status.NotEncrypted, Summary: "NOT ENCRYPTED: plaintext lanes (--insecure-plaintext) on 1 of 3 nodes; " + threeOfThree},
		},
		{
			"silent node", func(c *status.Cluster) {
				c.Nodes, c.Silent = c.Nodes[:2], []status.Silent{{Name: "n3", Problem: "timeout"}}
			},
			status.Verdict{
				State: status.Degraded, Summary: "DEGRADED: 2 of 3 nodes ready, 4 of 6 lanes up",
				Problems: []string{"n3: no report: timeout"},
			},
		},
		{
			"not ready", func(c *status.Cluster) { c.Nodes[0].Ready = false },
			status.Verdict{
				State: status.Degraded, Summary: "DEGRADED: 2 of 3 nodes ready, 6 of 6 lanes up",
				Problems: []string{"n1: not ready: no reason given"},
			},
		},
		{
			"lane down", func(c *status.Cluster) { c.Nodes[2].Peers[0].State = status.NoLane },
			status.Verdict{
				State: status.Degraded, Summary: "DEGRADED: 3 of 3 nodes ready, 5 of 6 lanes up",
				Problems: []string{"n3 to n1: no lane"},
			},
		},
		{
			"peer unknown to one node", func(c *status.Cluster) { c.Nodes[0].Peers = c.Nodes[0].Peers[:1] },
			status.Verdict{
				State: status.Degraded, Summary: "DEGRADED: 3 of 3 nodes ready, 5 of 6 lanes up",
				Problems: []string{"n1 to n3: no lane: n1 does not know that node"},
			},
		},
		{
			"wrong key", func(c *status.Cluster) { c.Nodes[0].Peers[0].PublicKey = "evil=" },
			status.Verdict{
				State: status.Degraded, Summary: "DEGRADED: " + threeOfThree,
				Problems: []string{"n1 to n2: encrypts to key evil=, but n2 has key " + statustest.PublicKey(2)},
			},
		},
		{
			"key under rotation", func(c *status.Cluster) { c.Nodes[1].Key = status.Key{Generation: 2, PublicKey: "next="} },
			status.Verdict{State: status.Encrypted, Summary: "encrypted: " + threeOfThree + ", wireguard (user-space), first certificate expires in 6d"},
		},
		{
			"report of another version", func(c *status.Cluster) { c.Nodes[1].Encapsulation = status.Encapsulation{} },
			status.Verdict{
				State: status.Degraded, Summary: "DEGRADED: " + threeOfThree,
				Problems: []string{"n2: its report does not say how packets travel: is its agent of another version?"},
			},
		},
		{
			"no guard", func(c *status.Cluster) { c.Nodes[1].Uplinks = nil },
			status.Verdict{
				State: status.Degraded, Summary: "DEGRADED: " + threeOfThree,
				Problems: []string{"n2: the leak guard watches no device"},
			},
		},
		{
			"no certificate", func(c *status.Cluster) { c.Nodes[1].Certificate = status.Certificate{} },
			status.Verdict{
				State: status.Degraded, Summary: "DEGRADED: " + threeOfThree,
				Problems: []string{"n2: no certificate yet"},
			},
		},
		{
			"ended", func(c *status.Cluster) {
				c.Nodes[1].Certificate.NotAfter, c.Nodes[1].Statement.NotAfter = statustest.Now().Add(-time.Hour), statustest.Now().Add(-time.Second)
			},
			status.Verdict{
				State: status.Degraded, Summary: "DEGRADED: " + threeOfThree,
				Problems: []string{"n2: its certificate expired 60m ago", "n2: its key statement expired 1s ago"},
			},
		},
		{
			"bundle refused", func(c *status.Cluster) { c.Nodes[1].BundleRefused = "nobody vouches for it; keys.acceptedRoots" },
			status.Verdict{
				State: status.Degraded, Summary: "DEGRADED: " + threeOfThree,
				Problems: []string{"n2: keeps its trust bundle: nobody vouches for it; keys.acceptedRoots"},
			},
		},
		{
			"renewal under way", func(c *status.Cluster) { c.Nodes[1].Certificate.RenewAt = statustest.Now().Add(-10 * time.Minute) },
			status.Verdict{State: status.Encrypted, Summary: "encrypted: " + threeOfThree + ", wireguard (user-space), first certificate expires in 6d"},
		},
		{
			"only warnings", func(c *status.Cluster) {
				c.Nodes[0].Certificate.RenewAt = statustest.Now().Add(-11 * time.Minute)
				c.Nodes[0].Refused = []status.Refusal{{Node: "n2", Reason: "fork", Message: "two statements", Count: 1, Last: statustest.Now().Add(-time.Minute)}}
				c.Nodes[0].ContinuityWarnings = []status.Refusal{{Node: "n3", Reason: "continuity", Message: "new key", Count: 1, Last: statustest.Now().Add(-time.Minute)}}
				c.Nodes[1].Drops = []status.Drop{{Reason: "no_lane", Packets: 4, Bytes: 400}, {Reason: "leak_ingress", Packets: 1, Bytes: 100}}
				c.Nodes[2].BundleHash = "cdcdcdcdcdcdcdcd"
			},
			status.Verdict{
				State: status.Encrypted, Summary: "encrypted: " + threeOfThree + ", wireguard (user-space), first certificate expires in 6d",
				Warnings: []string{
					"n1: its certificate should have been renewed 11m ago",
					"n1 refused 1 statement of n2 (fork), last 60s ago: two statements",
					"n1 accepted a certificate key of n3 that its previous key does not vouch for, last 60s ago: new key",
					"n2: the leak guard stopped 1 packet (leak_ingress)",
					"trust bundles differ: abababababab on n1, n2; cdcdcdcdcdcd on n3",
				},
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := statustest.Cluster(3)
			tc.change(&c)
			got := status.Judge(c)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
			if got.Good() != (tc.want.State == status.Encrypted) {
				t.Errorf("Good() = %v in state %s", got.Good(), got.State)
			}
		})
	}
}

// TestJudgeOfOneNode looks at a cluster through one of its nodes only.
func TestJudgeOfOneNode(t *testing.T) {
	c := statustest.Cluster(3)
	c.Nodes = c.Nodes[:1]
	const want = "encrypted: 1 of 1 nodes ready, 2 of 2 lanes up, wireguard (user-space), first certificate expires in 6d"
	if got := status.Judge(c); got.Summary != want || !got.Good() {
		t.Errorf("verdict %+v, want %q", got, want)
	}
}

func TestCollect(t *testing.T) {
	got := status.Collect([]status.Answer{
		{Name: "n3", Err: errors.New("timeout")},
		{Name: "n2", Node: status.Node{Name: "n2"}},
		{Name: "n4", Node: status.Node{Name: "n2"}},
		{Name: "n1", Node: status.Node{Name: "n1"}},
	})
	want := status.Cluster{
		Nodes:  []status.Node{{Name: "n1"}, {Name: "n2"}},
		Silent: []status.Silent{{Name: "n3", Problem: "timeout"}, {Name: "n4", Problem: "answered in the name of n2"}},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("Collect (-want +got):\n%s", diff)
	}
}

func TestCount(t *testing.T) {
	var all []status.Refusal
	for i, key := range []string{"b signature", "a sequence", "b chain", "b signature"} {
		node, reason, _ := strings.Cut(key, " ")
		all = status.Count(all, status.Refusal{Node: node, Reason: reason, Message: strconv.Itoa(i)})
	}
	want := []status.Refusal{
		{Node: "a", Reason: "sequence", Message: "1", Count: 1},
		{Node: "b", Reason: "chain", Message: "2", Count: 1},
		{Node: "b", Reason: "signature", Message: "3", Count: 2},
	}
	if !slices.Equal(all, want) {
		t.Errorf("counted %+v, want %+v", all, want)
	}
}
