// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package revoke

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/cmd/sealane/internal/cli"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/keytest"
)

// fakeCluster is a cluster of n1, n2 and n3 whose controller and agents do what
// they are told.
type fakeCluster struct {
	nodes   []kube.Node
	given   []cluster.Revocation
	number  uint64                 // of the list, 0: there is no controller
	reports map[string]status.Node // by node
	list    keymgr.RevocationList
	keys    *keytest.Cluster
	asked   func() // called with each request for a status
}

func newFakeCluster() *fakeCluster {
	c := &fakeCluster{number: 7, reports: map[string]status.Node{}, asked: func() {}}
	for _, name := range []string{"n1", "n2", "n3"} {
		c.nodes = append(c.nodes, kube.Node{Name: name, UID: "u-" + name, Ready: true})
		c.reports[name] = status.Node{Name: name, Revocations: status.Revocations{Number: 7}}
	}
	return c
}

func (c *fakeCluster) Nodes(context.Context) ([]kube.Node, error) { return slices.Clone(c.nodes), nil }

func (c *fakeCluster) Node(_ context.Context, name string) (kube.Node, error) {
	i := slices.IndexFunc(c.nodes, func(n kube.Node) bool { return n.Name == name })
	if i < 0 {
		return kube.Node{}, kube.ErrNotFound
	}
	return c.nodes[i], nil
}

func (c *fakeCluster) AgentPods(context.Context) (all []kube.Pod, err error) {
	for _, n := range c.nodes {
		all = append(all, kube.Pod{Name: n.Name, Node: n.Name, Ready: true})
	}
	return all, nil
}

func (c *fakeCluster) ProxyGet(_ context.Context, t kube.Target, _ string) ([]byte, error) {
	if t.Pod == "n1" {
		c.asked()
	}
	return json.Marshal(c.reports[t.Pod])
}

func (c *fakeCluster) CreateRevocation(_ context.Context, r cluster.Revocation) (cluster.Revocation, error) {
	for _, have := range c.given {
		if have.Name == r.Name {
			return cluster.Revocation{}, kube.ErrConflict
		}
	}
	c.given = append(c.given, r)
	return r, nil
}

func (c *fakeCluster) AwaitListed(ctx context.Context, name string) (cluster.Revocation, error) {
	if c.number == 0 {
		<-ctx.Done()
		return cluster.Revocation{}, ctx.Err()
	}
	r := c.given[0]
	r.Status.Number = c.number
	return r, nil
}

func (c *fakeCluster) Revocations(context.Context) ([]cluster.Revocation, error) { return c.given, nil }

func (c *fakeCluster) DeleteRevocation(_ context.Context, name string) error {
	before := len(c.given)
	c.given = slices.DeleteFunc(slices.Clone(c.given), func(r cluster.Revocation) bool { return r.Name == name })
	if len(c.given) == before {
		return kube.ErrNotFound
	}
	return nil
}

func (c *fakeCluster) Record(context.Context) (cluster.RevocationRecord, error) {
	if c.keys == nil {
		return cluster.RevocationRecord{}, nil
	}
	signed, err := c.keys.Authority.SignRevocations(c.list)
	if err != nil {
		return cluster.RevocationRecord{}, err
	}
	data, err := keymgr.EncodeSigned(signed)
	return cluster.RevocationRecord{List: data, Version: "1"}, err
}

func (c *fakeCluster) TrustBundle(context.Context) ([]byte, error) {
	return c.keys.Authority.Bundle(), nil
}

func (c *fakeCluster) TrustDomain(context.Context) (string, error) { return keytest.TrustDomain, nil }

func order(c *fakeCluster, name string, o revokeOptions) (string, error) {
	var out bytes.Buffer
	if o.reason == "" {
		o.reason = "keyCompromise"
	}
	err := revokeNode(context.Background(), c, cli.Terminal{Out: &out}, target{name: name, options: o})
	return out.String(), err
}

func TestRevokeNode(t *testing.T) {
	c := newFakeCluster()
	out, err := order(c, "n3", revokeOptions{message: "stolen"})
	if err != nil || out != "node n3 (UID u-n3) is revoked\n" {
		t.Errorf("%q, %v", out, err)
	}
	want := []cluster.Revocation{{
		Name: "u-n3", Node: keymgr.NodeID{Name: "n3", UID: "u-n3"}, Reason: keymgr.ReasonKeyCompromise, Message: "stolen",
	}}
	if diff := cmp.Diff(want, c.given); diff != "" {
		t.Errorf("orders (-want +got):\n%s", diff)
	}
	if out, err := order(c, "n3", revokeOptions{}); err != nil || !strings.Contains(out, "before") {
		t.Errorf("again: %q, %v", out, err)
	}
	if _, err := order(c, "n9", revokeOptions{}); err == nil || !strings.Contains(err.Error(), "node n9: no such node") {
		t.Errorf("unknown node: %v", err)
	}
}

// TestRevokeWaits until the last ready node has cut its lane.
func TestRevokeWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCluster()
		c.nodes = append(c.nodes, kube.Node{Name: "n4", UID: "u-n4"}) // down: it would never answer
		behind := c.reports["n1"]
		behind.Revocations.Number = 6
		c.reports["n1"] = behind
		c.reports["n2"] = status.Node{Name: "n2", Revocations: status.Revocations{Number: 8}, Peers: []status.Peer{{Name: "n3", UID: "u-n3", State: status.Connected}}}
		rounds := 0
		c.asked = func() {
			switch rounds++; rounds {
			case 2:
				behind.Revocations.Number = 7
				c.reports["n1"] = behind
			case 3:
				c.reports["n2"].Peers[0].State = status.Revoked
			}
		}
		out, err := order(c, "n3", revokeOptions{wait: 10 * time.Second})
		if err != nil || !strings.Contains(out, "list 7 carries it, and all 2 other ready nodes have cut their lanes") || rounds < 3 {
			t.Errorf("%q, %v after %d rounds", out, err, rounds)
		}
	})
}

func TestRevokeWaitsInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCluster()
		c.reports["n1"] = status.Node{Name: "n1", Revocations: status.Revocations{Number: 6}}
		delete(c.reports, "n2")
		_, err := order(c, "n3", revokeOptions{wait: 2 * time.Second})
		if err == nil || !strings.Contains(err.Error(), "2 of 2 nodes have not cut") || !strings.Contains(err.Error(), "n1: follows list 6") {
			t.Errorf("lanes stand: %v", err)
		}
		c.number, c.given = 0, nil
		_, err = order(c, "n3", revokeOptions{wait: 2 * time.Second})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "is the controller running?") {
			t.Errorf("no controller: %v", err)
		}
	})
}

func TestReadmit(t *testing.T) {
	c := newFakeCluster()
	var out bytes.Buffer
	if err := readmit(t.Context(), c, cli.Terminal{Out: &out}, "n3"); err == nil || !strings.Contains(err.Error(), "node n3 is not revoked") {
		t.Errorf("not revoked: %v", err)
	}
	c.given = []cluster.Revocation{
		{Name: "u-n3", Node: keymgr.NodeID{Name: "n3", UID: "u-n3"}},
		{Name: "old", Node: keymgr.NodeID{Name: "n3", UID: "old"}},
		{Name: "u-n2", Node: keymgr.NodeID{Name: "n2", UID: "u-n2"}},
	}
	if err := readmit(t.Context(), c, cli.Terminal{Out: &out}, "n3"); err != nil || len(c.given) != 1 || !strings.Contains(out.String(), "new key") {
		t.Errorf("%v, left %v: %s", err, c.given, out.String())
	}
}

func TestRevocations(t *testing.T) {
	c := newFakeCluster()
	show := func(output string) (string, error) {
		var out bytes.Buffer
		err := showRevocations(t.Context(), c, cli.Terminal{Out: &out}, output)
		return out.String(), err
	}
	if out, err := show("text"); err != nil || out != "no list is published yet\n" {
		t.Errorf("nothing yet: %q, %v", out, err)
	}
	c.keys = keytest.NewCluster(t)
	now := time.Now()
	entry := func(name string, blocked bool) keymgr.RevokedNode {
		return keymgr.RevokedNode{
			Name: name, UID: "u-" + name, Reason: keymgr.ReasonKeyCompromise, At: now.Add(-time.Hour), Blocked: blocked, Expires: now.Add(14 * 24 * time.Hour),
			Keys: []keymgr.Hash{{1}}, Serials: []keymgr.CertificateSerial{{Issuer: "CN=x", Serial: "a1"}},
		}
	}
	c.list = keymgr.RevocationList{
		Type: keymgr.RevocationsType, TrustDomain: keytest.TrustDomain, Number: 7, IssuedAt: now.Add(-time.Minute),
		Nodes: []keymgr.RevokedNode{entry("n1", true), entry("n2", false), entry("n3", true), entry("n4", false)},
	}
	for _, name := range []string{"n1", "n4", "n5"} {
		c.given = append(c.given, cluster.Revocation{Name: "u-" + name, Node: keymgr.NodeID{Name: name, UID: "u-" + name}, Reason: keymgr.ReasonSuperseded, Message: "of " + name})
	}
	out, err := show("json")
	if err != nil {
		t.Fatal(err)
	}
	var report status.RevocationReport
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	got := map[string]status.RevocationState{}
	for _, r := range report.Revocations {
		got[r.Node] = r.State
	}
	want := map[string]status.RevocationState{
		"n1": status.InForce, "n2": status.Readmitted, "n3": status.NodeGone, "n4": status.Ordered, "n5": status.Ordered,
	}
	if diff := cmp.Diff(want, got); diff != "" || report.Number != 7 {
		t.Errorf("list %d (-want +got):\n%s", report.Number, diff)
	}
	text, err := show("text")
	if err != nil || !strings.Contains(text, "list 7, issued 60s ago") || !strings.Contains(text, "of n5") {
		t.Errorf("%v:\n%s", err, text)
	}
	if _, err := show("yaml"); err == nil || !strings.Contains(err.Error(), "--output=yaml: want text or json") {
		t.Errorf("yaml: %v", err)
	}
	c.list.TrustDomain = "another"
	if _, err := show("text"); !errors.Is(err, keymgr.ErrTrustDomain) {
		t.Errorf("a list of another cluster: %v", err)
	}
}
