// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package status

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

	"github.com/sealane/sealane/overlay/backend"
)

func TestJudge(t *testing.T) {
	const threeOfThree = "3 of 3 nodes ready, 6 of 6 lanes up"
	for _, tc := range []struct {
		name   string
		change func(*Cluster)
		want   Verdict
	}{
		{
			"all well", func(*Cluster) {},
			Verdict{State: Encrypted, Summary: "encrypted: " + threeOfThree + ", wireguard (user-space), first certificate ends in 6d"},
		},
		{
			"two backends", func(c *Cluster) { c.Nodes[0].Lane.Backend = backend.Kernel },
			Verdict{State: Encrypted, Summary: "encrypted: " + threeOfThree + ", wireguard (kernel) and wireguard (user-space), first certificate ends in 6d"},
		},
		{
			"nobody", func(c *Cluster) { *c = Cluster{} },
			Verdict{State: Unknown, Summary: "UNKNOWN: no node to ask"},
		},
		{
			"one plaintext node counts as all", func(c *Cluster) { c.Nodes[1].Lane.Plaintext = true },
			Verdict{State: NotEncrypted, Summary: "NOT ENCRYPTED: plaintext lanes (--insecure-plaintext) on 1 of 3 nodes; " + threeOfThree},
		},
		{
			"silent node", func(c *Cluster) { c.Nodes, c.Silent = c.Nodes[:2], []Silent{{"n3", "timeout"}} },
			Verdict{
				State: Degraded, Summary: "DEGRADED: 2 of 3 nodes ready, 4 of 6 lanes up",
				Problems: []string{"n3: no report: timeout"},
			},
		},
		{
			"not ready", func(c *Cluster) { c.Nodes[0].Ready = false },
			Verdict{
				State: Degraded, Summary: "DEGRADED: 2 of 3 nodes ready, 6 of 6 lanes up",
				Problems: []string{"n1: not ready: no reason given"},
			},
		},
		{
			"lane down", func(c *Cluster) { c.Nodes[2].Peers[0].State = NoLane },
			Verdict{
				State: Degraded, Summary: "DEGRADED: 3 of 3 nodes ready, 5 of 6 lanes up",
				Problems: []string{"n3 to n1: no lane"},
			},
		},
		{
			"peer unknown to one node", func(c *Cluster) { c.Nodes[0].Peers = c.Nodes[0].Peers[:1] },
			Verdict{
				State: Degraded, Summary: "DEGRADED: 3 of 3 nodes ready, 5 of 6 lanes up",
				Problems: []string{"n1 to n3: no lane: n1 knows nothing of that node"},
			},
		},
		{
			"wrong key", func(c *Cluster) { c.Nodes[0].Peers[0].PublicKey = "evil=" },
			Verdict{
				State: Degraded, Summary: "DEGRADED: " + threeOfThree,
				Problems: []string{"n1 to n2: encrypts to key evil=, but n2 has key " + publicKey(2)},
			},
		},
		{
			"key under rotation", func(c *Cluster) { c.Nodes[1].Key = Key{Generation: 2, PublicKey: "next="} },
			Verdict{State: Encrypted, Summary: "encrypted: " + threeOfThree + ", wireguard (user-space), first certificate ends in 6d"},
		},
		{
			"no guard", func(c *Cluster) { c.Nodes[1].Uplinks = nil },
			Verdict{
				State: Degraded, Summary: "DEGRADED: " + threeOfThree,
				Problems: []string{"n2: the leak guard watches no device"},
			},
		},
		{
			"no certificate", func(c *Cluster) { c.Nodes[1].Certificate = Certificate{} },
			Verdict{
				State: Degraded, Summary: "DEGRADED: " + threeOfThree,
				Problems: []string{"n2: no certificate yet"},
			},
		},
		{
			"ended", func(c *Cluster) {
				c.Nodes[1].Certificate.NotAfter, c.Nodes[1].Statement.NotAfter = now.Add(-time.Hour), now.Add(-time.Second)
			},
			Verdict{
				State: Degraded, Summary: "DEGRADED: " + threeOfThree,
				Problems: []string{"n2: its certificate ended 60m ago", "n2: its key statement ended 1s ago"},
			},
		},
		{
			"renewal under way", func(c *Cluster) { c.Nodes[1].Certificate.RenewAt = now.Add(-overdue) },
			Verdict{State: Encrypted, Summary: "encrypted: " + threeOfThree + ", wireguard (user-space), first certificate ends in 6d"},
		},
		{
			"only warnings", func(c *Cluster) {
				c.Nodes[0].Certificate.RenewAt = now.Add(-11 * time.Minute)
				c.Nodes[0].Refused = []Refusal{{"n2", "fork", "two statements", 1, now.Add(-time.Minute)}}
				c.Nodes[0].Discontinuities = []Refusal{{"n3", "continuity", "new key", 1, now.Add(-time.Minute)}}
				c.Nodes[1].Drops = []Drop{{"no_lane", 4, 400}, {"leak_ingress", 1, 100}}
				c.Nodes[2].BundleHash = "cdcdcdcdcdcdcdcd"
			},
			Verdict{
				State: Encrypted, Summary: "encrypted: " + threeOfThree + ", wireguard (user-space), first certificate ends in 6d",
				Warnings: []string{
					"n1: its certificate should have been renewed 11m ago",
					"n1 refused 1 statement of n2 (fork), last 60s ago: two statements",
					"n1 accepted a certificate key of n3 that its former one does not vouch for, last 60s ago: new key",
					"n2: the leak guard stopped 1 packet (leak_ingress)",
					"trust bundles differ: abababababab on n1, n2; cdcdcdcdcdcd on n3",
				},
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := cluster(3)
			tc.change(&c)
			got := Judge(c)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
			if got.Good() != (tc.want.State == Encrypted) {
				t.Errorf("Good() = %v in state %s", got.Good(), got.State)
			}
		})
	}
}

// TestJudgeOfOneNode looks at a cluster through one of its nodes only.
func TestJudgeOfOneNode(t *testing.T) {
	c := cluster(3)
	c.Nodes = c.Nodes[:1]
	const want = "encrypted: 1 of 1 nodes ready, 2 of 2 lanes up, wireguard (user-space), first certificate ends in 6d"
	if got := Judge(c); got.Summary != want || !got.Good() {
		t.Errorf("verdict %+v, want %q", got, want)
	}
}

func TestCollect(t *testing.T) {
	got := Collect([]Answer{
		{Name: "n3", Err: errors.New("timeout")},
		{Name: "n2", Node: Node{Name: "n2"}},
		{Name: "n4", Node: Node{Name: "n2"}},
		{Name: "n1", Node: Node{Name: "n1"}},
	})
	want := Cluster{
		Nodes:  []Node{{Name: "n1"}, {Name: "n2"}},
		Silent: []Silent{{"n3", "timeout"}, {"n4", `answered in the name of "n2"`}},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("Collect (-want +got):\n%s", diff)
	}
}

func TestAgo(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s ago": 0, "119s ago": 119 * time.Second, "2m ago": 2 * time.Minute, "119m ago": 2*time.Hour - 1,
		"2h ago": 2 * time.Hour, "47h ago": 47 * time.Hour, "2d ago": 48 * time.Hour, "729d ago": 729 * day, "2y ago": 730 * day,
		"in 1s": -1500 * time.Millisecond, "in 6d": -6*day - time.Hour, "in 10y": -3655 * day,
	} {
		if got := Ago(now, now.Add(-d)); got != want {
			t.Errorf("Ago(%v) = %q, want %q", d, got, want)
		}
	}
	if got := Ago(now, time.Time{}); got != "never" {
		t.Errorf("Ago(zero) = %q", got)
	}
	if got := Ago(time.Time{}, now); got != "2026-08-22T12:00:00Z" {
		t.Errorf("Ago without a clock = %q", got)
	}
}

func TestBytes(t *testing.T) {
	for want, n := range map[string]uint64{
		"0 B": 0, "1023 B": 1023, "1.0 KiB": 1024, "999.9 KiB": 1023898, "1.0 MiB": 1023950, "1.5 GiB": 3 << 29, "16.0 EiB": 1<<64 - 1,
	} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	var all []Refusal
	for i, key := range []string{"b signature", "a sequence", "b chain", "b signature"} {
		node, reason, _ := strings.Cut(key, " ")
		all = Count(all, Refusal{Node: node, Reason: reason, Message: strconv.Itoa(i)})
	}
	want := []Refusal{
		{Node: "a", Reason: "sequence", Message: "1", Count: 1},
		{Node: "b", Reason: "chain", Message: "2", Count: 1},
		{Node: "b", Reason: "signature", Message: "3", Count: 2},
	}
	if !slices.Equal(all, want) {
		t.Errorf("counted %+v, want %+v", all, want)
	}
}
