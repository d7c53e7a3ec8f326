// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package compile_test

import (
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sealane/sealane/policy"
	"github.com/sealane/sealane/policy/policytest"
)

func TestMalformedFailsClosed(t *testing.T) {
	for _, tt := range []struct {
		name, spec, says string
		allowed, denied  []string
	}{
		{
			"cidr", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.1.0}}, {podSelector: {}}]}]}`,
			`default/it: malformed policy: spec.ingress[0].from[0].ipBlock.cidr is "10.0.1.0"`,
			[]string{"db > web tcp/1"},
			[]string{"cart > web tcp/1"},
		},
		{
			"the only peer", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: "::ffff:10.0.0.0/104"}}]}]}`,
			`from[0].ipBlock.cidr is "::ffff:10.0.0.0/104"`, nil,
			[]string{"cart > web tcp/1", "db > web tcp/1"},
		},
		{
			"except", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.2]}}]}]}`,
			`ipBlock.except[0] is "10.0.0.2"`, nil,
			[]string{"cart > web tcp/1", "db > web tcp/1"},
		},
		{
			"except outside", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}]}`,
			`write a part of 10.0.0.0/8`, nil,
			[]string{"cart > web tcp/1"},
		},
		{
			"pod selector of a peer", `{podSelector: {}, egress: [{to: [{podSelector: {matchExpressions: [{key: a, operator: Near}]}}]}]}`,
			`spec.egress[0].to[0].podSelector`, nil,
			[]string{"db > web tcp/1"},
		},
		{
			"namespace selector of a peer", `{podSelector: {}, egress: [{to: [{namespaceSelector: {matchLabels: {a: "-"}}}]}]}`,
			`spec.egress[0].to[0].namespaceSelector is "a=-"`, nil,
			[]string{"db > web tcp/1"},
		},
		{
			"selector of the policy: all pods are isolated", `{podSelector: {matchExpressions: [{key: app, operator: In}]}, ingress: [{ports: [{port: 1}]}]}`,
			`spec.podSelector`,
			[]string{"cart > web tcp/1"},
			[]string{"cart > web tcp/2", "cart > db tcp/2"},
		},
		{
			"empty peer is not any peer", `{podSelector: {}, ingress: [{from: [{}]}]}`, `from[0] is "empty"`, nil, []string{"cart > web tcp/1"},
		},
		{
			"ipBlock beside a selector", `{podSelector: {}, ingress: [{from: [{podSelector: {}, ipBlock: {cidr: 0.0.0.0/0}}]}]}`,
			`write them as two peers`, nil,
			[]string{"db > web tcp/1"},
		},
		{"protocol", `{podSelector: {}, ingress: [{ports: [{protocol: ICMP}]}]}`, `ports[0].protocol is "ICMP"`, nil, []string{"db > web icmp", "db > web tcp/1"}},
		{"port 0", `{podSelector: {}, ingress: [{ports: [{port: 0}]}]}`, `ports[0] is "0-0"`, nil, []string{"db > web tcp/0", "db > web tcp/1"}},
		{"end after all", `{podSelector: {}, ingress: [{ports: [{port: 9, endPort: 65536}]}]}`, `"9-65536"`, nil, []string{"db > web tcp/9"}},
		{"end before begin", `{podSelector: {}, ingress: [{ports: [{port: 9, endPort: 8}]}]}`, `"9-8"`, nil, []string{"db > web tcp/8", "db > web tcp/9"}},
		{"end without begin", `{podSelector: {}, ingress: [{ports: [{endPort: 8}]}]}`, `ports[0].endPort is "8"`, nil, []string{"db > web tcp/8"}},
		{"end of a name", `{podSelector: {}, ingress: [{ports: [{port: http, endPort: 90}]}]}`, `ports[0].port is "http"`, nil, []string{"db > web tcp/80"}},
		{"type", `{podSelector: {}, policyTypes: [Sideways]}`, `policyTypes[0] is "Sideways"`, nil, []string{"db > web tcp/1", "web > 8.8.8.8 tcp/1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cluster := policytest.Small()
			cluster.Policies = []*networkingv1.NetworkPolicy{policytest.PolicyOf(t, tt.spec)}
			tables, err := tablesOf(cluster)
			wantError(t, err, policy.ErrMalformed, tt.says)
			check(t, cluster, tables, tt.allowed, true)
			check(t, cluster, tables, tt.denied, false)
		})
	}
}
