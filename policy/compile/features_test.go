// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package compile_test

import (
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sealane/sealane/policy"
	"github.com/sealane/sealane/policy/compile"
	"github.com/sealane/sealane/policy/oracle"
	"github.com/sealane/sealane/policy/policytest"
)

func tablesOf(c oracle.Cluster) (policy.Tables, error) {
	compiler := compile.NewCompiler()
	for _, p := range c.Pods {
		p.Local = true
		compiler.SetPod(p)
	}
	for name, set := range c.Namespaces {
		compiler.SetNamespace(name, set)
	}
	var err error
	for _, np := range c.Policies {
		err = compiler.SetPolicy(np)
	}
	return compiler.Tables(), err
}

func TestFeatures(t *testing.T) {
	for _, tt := range []struct {
		name, spec      string
		allowed, denied []string
	}{
		{
			"default deny of both", `{podSelector: {}, policyTypes: [Ingress, Egress]}`,
			[]string{"node > web tcp/80", "web > node tcp/80", "cart > 8.8.8.8 tcp/80", "8.8.8.8 > cart icmp"},
			[]string{"web > db tcp/80", "cart > db tcp/80", "db > cart tcp/80", "8.8.8.8 > web tcp/80", "web > 8.8.8.8 icmp", "172.16.0.2 > web tcp/80", "web6 > db6 tcp/1"},
		},
		{
			"a pod reaches itself", `{podSelector: {}, policyTypes: [Ingress, Egress]}`,
			[]string{"web > web tcp/80", "web6 > web6 icmp"},
			nil,
		},
		{
			"types absent without egress rules: ingress only", `{podSelector: {matchLabels: {app: web}}}`,
			[]string{"web > db tcp/1", "db > cart tcp/1"},
			[]string{"db > web tcp/1", "8.8.8.8 > web tcp/1"},
		},
		{
			"types absent with egress rules: both", `{podSelector: {matchLabels: {app: web}}, egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]}`,
			[]string{"web > db tcp/1", "web > db icmp"},
			[]string{"web > cart tcp/1", "db > web tcp/1"},
		},
		{
			"types egress: ingress rules count for nothing", `{podSelector: {}, policyTypes: [Egress], ingress: [{from: [{podSelector: {}}]}]}`,
			[]string{"cart > web tcp/1", "8.8.8.8 > web tcp/1"},
			[]string{"web > cart tcp/1"},
		},
		{
			"an empty rule allows everything", `{podSelector: {}, ingress: [{}]}`,
			[]string{"8.8.8.8 > web icmp", "cart6 > web6 tcp/1", "cart > db udp/9"},
			nil,
		},
		{
			"a rule with empty lists allows everything", `{podSelector: {}, ingress: [{from: [], ports: []}]}`,
			[]string{"8.8.8.8 > web icmp", "cart > db udp/9"},
			nil,
		},
		{
			"podSelector means the policy's namespace", `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`,
			[]string{"web > db tcp/1", "web6 > db6 icmp"},
			[]string{"cart > db tcp/1", "db > web tcp/1", "8.8.8.8 > db tcp/1"},
		},
		{
			"empty podSelector means all pods of the namespace", `{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`,
			[]string{"web > db tcp/1", "db > web icmp"},
			[]string{"cart > db tcp/1", "8.8.8.8 > db tcp/1"},
		},
		{
			"namespaceSelector", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}`,
			[]string{"cart > db tcp/1"},
			[]string{"web > db tcp/1"},
		},
		{
			"empty namespaceSelector means all pods", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}`,
			[]string{"cart > db tcp/1", "web > db icmp"},
			[]string{"8.8.8.8 > db tcp/1", "172.16.0.2 > db tcp/1"},
		},
		{
			"both selectors in one peer", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: Exists}]}, podSelector: {matchLabels: {app: db}}}]}]}`,
			nil,
			[]string{"cart > db tcp/1", "web > db tcp/1"},
		},
		{
			"both selectors as two peers", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: Exists}]}}, {podSelector: {matchLabels: {app: web}}}]}]}`,
			[]string{"cart > db tcp/1", "web > db tcp/1"},
			[]string{"db > web tcp/1"},
		},
		{
			"ipBlock with except", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.168.0.0/16, except: [192.168.1.0/24]}}]}]}`,
			[]string{"192.168.0.1 > web tcp/1", "192.168.2.1 > web icmp"},
			[]string{"192.168.1.1 > web tcp/1", "cart > web tcp/1"},
		},
		{
			"what one block excepts another may allow", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.168.0.0/16, except: [192.168.1.0/24]}}, {ipBlock: {cidr: 192.168.1.128/25}}]}]}`,
			[]string{"192.168.1.129 > web tcp/1", "192.168.2.1 > web tcp/1"},
			[]string{"192.168.1.1 > web tcp/1"},
		},
		{
			"ipBlock matches pods too", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.1.0/24}}]}]}`,
			[]string{"cart > web tcp/1"},
			[]string{"db > web tcp/1"},
		},
		{
			"0.0.0.0/0 is IPv4 only", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}`,
			[]string{"8.8.8.8 > web tcp/1", "::ffff:8.8.8.8 > web tcp/1"},
			[]string{"cart6 > web6 tcp/1", "2001:db8::1 > web6 tcp/1"},
		},
		{
			"::/0 is IPv6 only", `{podSelector: {}, egress: [{to: [{ipBlock: {cidr: "::/0", except: ["2001:db8::/32"]}}]}]}`,
			[]string{"web6 > cart6 tcp/1", "web6 > 2001:db9::1 icmp"},
			[]string{"web > cart tcp/1", "web > 8.8.8.8 tcp/1", "web6 > 2001:db8::1 tcp/1"},
		},
		{
			"port by number is TCP", `{podSelector: {}, ingress: [{ports: [{port: 80}]}]}`,
			[]string{"8.8.8.8 > web tcp/80"},
			[]string{"8.8.8.8 > web udp/80", "8.8.8.8 > web tcp/81", "8.8.8.8 > web icmp", "cart > web tcp/79"},
		},
		{
			"endPort", `{podSelector: {}, ingress: [{ports: [{protocol: UDP, port: 80, endPort: 90}, {protocol: SCTP, port: 7}]}]}`,
			[]string{"cart > web udp/80", "cart > web udp/85", "cart > web udp/90", "cart > web sctp/7"},
			[]string{"cart > web udp/79", "cart > web udp/91", "cart > web tcp/80", "cart > web sctp/8"},
		},
		{
			"protocol without port", `{podSelector: {}, ingress: [{ports: [{protocol: SCTP}]}]}`,
			[]string{"cart > web sctp/1", "cart > web sctp/65535"},
			[]string{"cart > web tcp/1", "cart > web icmp"},
		},
		{
			"named port of ingress is the subject's", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}], ports: [{port: http}]}]}`,
			[]string{"cart > web tcp/80"},
			[]string{"cart > web tcp/8080", "cart > web udp/8443", "cart > db tcp/80", "8.8.8.8 > web tcp/80"},
		},
		{
			"named port has its protocol", `{podSelector: {}, ingress: [{ports: [{port: http, protocol: UDP}]}]}`,
			[]string{"cart > web udp/8443"},
			[]string{"cart > web tcp/80"},
		},
		{
			"named port of egress is the peer's", `{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}`,
			[]string{"db > web tcp/80", "web > cart tcp/8080"},
			[]string{"web > cart tcp/80", "web > db tcp/80", "web > 8.8.8.8 tcp/80"},
		},
		{
			"named port of egress to all pods", `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: http}, {port: 1}]}]}`,
			[]string{"db > web tcp/80", "web > cart tcp/8080", "web > db tcp/1"},
			[]string{"web > db tcp/80", "web > 8.8.8.8 tcp/1"},
		},
		{
			"named port of egress to addresses has no pod to ask", `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: http}, {port: 1}]}]}`,
			[]string{"db > web tcp/1", "db > 10.9.9.9 tcp/1"},
			[]string{"db > web tcp/80"},
		},
		{
			"dry run is not in force", `{podSelector: {}}`, nil, []string{"cart > web tcp/1"},
		},
		{
			"dry run by annotation", "metadata: {namespace: default, name: it, annotations: {sealane.io/dry-run: 'true'}}\nspec: {podSelector: {}}",
			[]string{"cart > web tcp/1"},
			nil,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cluster := policytest.Small()
			cluster.Policies = []*networkingv1.NetworkPolicy{policytest.PolicyOf(t, tt.spec)}
			tables, err := tablesOf(cluster)
			if err != nil {
				t.Fatal(err)
			}
			check(t, cluster, tables, tt.allowed, true)
			check(t, cluster, tables, tt.denied, false)
		})
	}
}

func check(t *testing.T, cluster oracle.Cluster, tables policy.Tables, lines []string, want bool) {
	t.Helper()
	for _, line := range lines {
		x := policytest.TrafficOf(t, line)
		if got := tables.Verdict(x, cluster.Nodes["a"]...).Allowed(); got != want {
			t.Errorf("tables: %s: allowed is %v, want %v", line, got, want)
		}
		if d := oracle.Decide(cluster, x); d.Allowed() != want {
			t.Errorf("oracle: %s: want %v:\n%v", line, want, d)
		}
	}
}
