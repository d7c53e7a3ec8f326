// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package compile_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sealane/sealane/internal/ipproto"
	"github.com/sealane/sealane/policy"
	"github.com/sealane/sealane/policy/compile"
	"github.com/sealane/sealane/policy/oracle"
	"github.com/sealane/sealane/policy/policytest"
)

func wantError(t *testing.T, err, sentinel error, says string) {
	t.Helper()
	if !errors.Is(err, sentinel) {
		t.Fatalf("error is %v, want one that wraps %q", err, sentinel)
	}
	if !strings.Contains(err.Error(), says) {
		t.Errorf("error is %v, want one that says %q", err, says)
	}
}

// settled is a compiler of the small cluster with policies, whose first changes
// have been taken.
func settled(t *testing.T, specs ...string) *compile.Compiler {
	t.Helper()
	c := compile.NewCompiler()
	tell(t, c, specs...)
	c.Changes()
	return c
}

// tell tells a compiler of the small cluster with policies.
func tell(t *testing.T, c *compile.Compiler, specs ...string) {
	t.Helper()
	cluster := policytest.Small()
	for _, p := range cluster.Pods {
		p.Local = p.Namespace == "default"
		c.SetPod(p)
	}
	for name, set := range cluster.Namespaces {
		c.SetNamespace(name, set)
	}
	for _, spec := range specs {
		if err := c.SetPolicy(policytest.PolicyOf(t, spec)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTwoPodsWithOneAddress(t *testing.T) {
	c := settled(t, `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`)
	x := policytest.TrafficOf(t, "10.0.0.9 > db tcp/1")
	old := policy.Pod{
		Namespace: "default", Name: "old", UID: "8", Labels: map[string]string{"app": "web"},
		Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.9")}, Created: time.Unix(1, 0), Local: true,
	}
	young := old
	young.Name, young.UID, young.Labels, young.Created, young.Local = "young", "7", nil, time.Unix(2, 0), false
	for _, tt := range []struct {
		what             string
		do               func()
		allowed, guarded bool
	}{
		{"nobody has it", func() {}, false, false},
		{"the old one has it", func() { c.SetPod(old) }, true, true},
		{"the young one takes it", func() { c.SetPod(young) }, false, false},
		{"the old one is told again", func() { c.SetPod(old) }, false, false},
		{"the old one has it again", func() { c.DeletePod("default", "young") }, true, true},
		{"of one age, the greater UID", func() { young.Created, young.UID = old.Created, "9"; c.SetPod(young) }, false, false},
		{"of one age, the lesser UID", func() { young.UID = "7"; c.SetPod(young) }, true, true},
		{"nobody has it again", func() { c.DeletePod("default", "young"); c.DeletePod("default", "old") }, false, false},
	} {
		tt.do()
		tables := c.Tables()
		if got := tables.Verdict(x).Allowed(); got != tt.allowed {
			t.Errorf("%s: allowed is %v", tt.what, got)
		}
		if _, got := tables.Endpoints[x.From]; got != tt.guarded {
			t.Errorf("%s: guarded is %v", tt.what, got)
		}
	}
}

func TestNamespaceAfterItsPods(t *testing.T) {
	c := settled(t, `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: late}}}]}]}`)
	c.SetPod(policy.Pod{Namespace: "late", Name: "p", Addresses: []netip.Addr{netip.MustParseAddr("10.0.9.9")}})
	x := policytest.TrafficOf(t, "10.0.9.9 > web tcp/1")
	if c.Tables().Verdict(x).Allowed() {
		t.Error("allowed before the namespace is known")
	}
	c.SetNamespace("late", map[string]string{"kubernetes.io/metadata.name": "late"})
	if !c.Tables().Verdict(x).Allowed() {
		t.Error("denied when the namespace is known")
	}
	c.DeleteNamespace("late")
	if c.Tables().Verdict(x).Allowed() {
		t.Error("allowed when the namespace is gone")
	}
}

func TestPodsOfOneKindShareSets(t *testing.T) {
	c := settled(t, `{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}]}]}`)
	tables := c.Tables()
	web, db := tables.Endpoints[policytest.Address("web")], tables.Endpoints[policytest.Address("db")]
	if web != db {
		t.Errorf("guards are %+v and %+v, want the same", web, db)
	}
	if web.Egress != policy.Closed || web.DryRunIngress != web.Ingress {
		t.Errorf("guard is %+v, want egress Closed and dry run as in force", web)
	}
	if _, other := tables.Endpoints[policytest.Address("cart")]; other {
		t.Error("a pod of another node has a guard")
	}
	if len(tables.Sets) != 2 || len(tables.Identities) != 6 {
		t.Errorf("%d sets and %d identities, want 2 and 6", len(tables.Sets), len(tables.Identities))
	}
}

func TestWhatAllMayHaveIsNotListedForSome(t *testing.T) {
	some := `{from: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 80}]}`
	for peers, want := range map[string]int{
		`{}`:                                0,
		`{from: [{namespaceSelector: {}}]}`: 1, // the ipBlock
		`{ports: [{port: 80}]}`:             3, // two identities and the ipBlock: narrower than it could be
	} {
		c := settled(t, `{podSelector: {}, ingress: [`+some+`, `+peers+`]}`)
		if n := len(c.Tables().Rules); n != want {
			t.Errorf("%s: %d rules, want %d", peers, n, want)
		}
	}
}

func TestSetsDifferByNamedPortsOnlyIfNeeded(t *testing.T) {
	c := settled(t, `{podSelector: {}, ingress: [{ports: [{port: http}]}]}`)
	tables := c.Tables()
	if tables.Endpoints[policytest.Address("web")] == tables.Endpoints[policytest.Address("db")] {
		t.Error("pods with different ports for a name share a set")
	}
}

func TestPortsMerge(t *testing.T) {
	c := settled(t, `{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 85}, {port: 86}, {port: 83, endPort: 84}, {port: 80, protocol: UDP}, {port: 88}, {port: 65535}]}]}`)
	want := []policy.Ports{{Protocol: ipproto.TCP, First: 80, Last: 86}, {Protocol: ipproto.TCP, First: 88, Last: 88}, {Protocol: ipproto.TCP, First: 65535, Last: 65535}, {Protocol: ipproto.UDP, First: 80, Last: 80}}
	for _, got := range c.Tables().Ports {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	if n := len(c.Tables().Ports); n != 1 {
		t.Errorf("%d sets of ports, want 1", n)
	}
}

func TestDryRunCountsOnlyThere(t *testing.T) {
	c := settled(t, `{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}`,
		"metadata: {namespace: default, name: dry, annotations: {sealane.io/dry-run: 'true'}}\nspec: {podSelector: {}, ingress: [{ports: [{port: 81}]}]}")
	for line, want := range map[string][4]bool{
		"cart > web tcp/80": {true, true, true, true},
		"cart > web tcp/81": {true, false, true, true},
		"cart > web tcp/82": {true, false, true, false},
		"cart > db tcp/81":  {true, true, true, true},
		"cart > db tcp/82":  {true, true, true, false},
	} {
		if got := quarters(c.Tables().Verdict(policytest.TrafficOf(t, line))); got != want {
			t.Errorf("%s: %v, want %v", line, got, want)
		}
	}
}

// TestChangesAreSmall counts what changes cost. The numbers are what they are
// for this cluster; a greater one means that entries are written for nothing.
func TestChangesAreSmall(t *testing.T) {
	c := settled(t, `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}, {ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 80}]}]}`)
	cart := policytest.Small().Pods[2]
	for _, tt := range []struct {
		what string
		do   func()
		want int
	}{
		{"nothing", func() {}, 0},
		{"a pod told again", func() { c.SetPod(cart) }, 0},
		{"a namespace told again", func() { c.SetNamespace("shop", policytest.Small().Namespaces["shop"]) }, 0},
		{"a pod gone and back", func() { c.DeletePod("shop", "cart"); c.SetPod(cart) }, 0},
		{"a pod of a known identity: one address", func() {
			twin := cart
			twin.Name, twin.Addresses = "twin", []netip.Addr{netip.MustParseAddr("10.0.1.2")}
			c.SetPod(twin)
		}, 1},
		{"a pod of a new identity: one address and one rule", func() {
			other := cart
			other.Name, other.Labels, other.Addresses = "other", nil, []netip.Addr{netip.MustParseAddr("10.0.1.3")}
			c.SetPod(other)
		}, 2},
		{"an address within a block is not written", func() {
			c.DeletePod("shop", "other")
		}, 2},
	} {
		tt.do()
		n, steps := 0, c.Changes()
		for _, ch := range steps {
			n += ch.Len()
		}
		if n != tt.want {
			t.Errorf("%s: %d changes, want %d: %+v", tt.what, n, tt.want, steps)
		}
	}
}

func TestNewPrefixBetweenOthersChangesLongerOnes(t *testing.T) {
	c := settled(t, `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 10.1.1.0/24}}], ports: [{port: 1}]}]}`)
	before := c.Tables().Blocks
	np := policytest.PolicyOf(t, `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.1.0.0/16}}], ports: [{port: 2}]}]}`)
	np.Name = "between"
	if err := c.SetPolicy(np); err != nil {
		t.Fatal(err)
	}
	after := c.Tables().Blocks
	for text, changes := range map[string]bool{"10.0.0.0/8": false, "10.1.1.0/24": true, "10.1.0.0/16": true} {
		p := netip.MustParsePrefix(text)
		if (before[p] != after[p]) != changes {
			t.Errorf("group of %s was %#x and is %#x", p, before[p], after[p])
		}
	}
	check(t, oracle.Cluster{Pods: policytest.Small().Pods, Policies: []*networkingv1.NetworkPolicy{np}}, c.Tables(), []string{"10.1.1.1 > web tcp/2"}, true)
}

func TestCollisionsDeny(t *testing.T) {
	spec := `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}, {ipBlock: {cidr: 192.168.0.0/16, except: [192.168.1.0/24]}}], ports: [{port: 80}]}],
	         egress: [{to: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 81}]}]}`
	// Which of two things comes first is up to chance, and must not matter.
	for _, number := range slices.Repeat([]uint64{0, 1, 77}, 10) {
		for _, kind := range []string{"peer", "set", "ports"} {
			c := compile.NewCompiler()
			c.SetHash(kind, func(string) uint64 { return number })
			cluster := policytest.Small()
			for _, p := range cluster.Pods {
				p.Local = true
				c.SetPod(p)
			}
			for name, set := range cluster.Namespaces {
				c.SetNamespace(name, set)
			}
			np := policytest.PolicyOf(t, spec)
			if err := c.SetPolicy(np); err != nil {
				t.Fatal(err)
			}
			cluster.Policies = append(cluster.Policies, np)
			neverMore(t, cluster, c.Tables())
			wantError(t, c.Err(), compile.ErrCollision, "number "+kind)
			c.DeletePolicy(np.Namespace, np.Name)
			for _, p := range cluster.Pods {
				c.DeletePod(p.Namespace, p.Name)
			}
			if diff := cmp.Diff(policy.Tables{}, c.Tables(), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s: something stays:\n%s", kind, diff)
			}
		}
	}
}

// neverMore holds tables with refused numbers against the oracle: they may
// allow less.
func neverMore(t *testing.T, cluster oracle.Cluster, tables policy.Tables) {
	t.Helper()
	names := []string{"web", "db", "cart", "192.168.0.1", "192.168.1.1", "8.8.8.8", "web6", "db6", "cart6"}
	for _, from := range names {
		for _, to := range names {
			for _, port := range []string{"tcp/80", "tcp/81", "icmp"} {
				x := policytest.TrafficOf(t, from+" > "+to+" "+port)
				if tables.Verdict(x, cluster.Nodes["a"]...).Allowed() && !oracle.Decide(cluster, x).Allowed() {
					t.Errorf("allowed by a collision:\n%v", oracle.Decide(cluster, x))
				}
			}
		}
	}
}
