// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package oracle_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sealane/sealane/policy/oracle"
	"github.com/sealane/sealane/policy/policytest"
)

func TestDecisionExplains(t *testing.T) {
	cluster := policytest.Small()
	cluster.Policies = []*networkingv1.NetworkPolicy{
		policytest.PolicyOf(t, `{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{ipBlock: {cidr: 9.0.0.0/8}}, {podSelector: {}}], ports: [{port: 80}, {protocol: UDP}]}, {ports: [{port: http}]}]}`),
		policytest.PolicyOf(t, "metadata: {namespace: default, name: trial, annotations: {sealane.io/dry-run: 'true'}}\nspec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Egress]}"),
	}
	for line, want := range map[string]string{
		"db > web tcp/80": `10.0.0.2 -> 10.0.0.1 TCP port 80: allowed
  egress of default/db: allowed: no policy isolates it
  egress of default/db with policies in dry run: denied: isolated by default/trial, and no rule allows it
  ingress of default/web: allowed by default/it ingress[0] from[1] ports[0], default/it ingress[1] ports[0]
`,
		"8.8.8.8 > web sctp/80": `8.8.8.8 -> 10.0.0.1 SCTP port 80: denied
  egress: allowed: not the address of a pod, so that no policy is asked
  ingress of default/web: denied: isolated by default/it, and no rule allows it
`,
		"node > web icmp": `172.16.0.1 -> 10.0.0.1 protocol 1: allowed
  egress: allowed: not the address of a pod, so that no policy is asked
  ingress of default/web: allowed: a pod and its own node may always reach each other
`,
		"web6 > web6 udp/7": `fd00::1 -> fd00::1 UDP port 7: allowed
  egress of default/web: allowed: a pod may always reach itself
  ingress of default/web: allowed: a pod may always reach itself
`,
	} {
		if diff := cmp.Diff(want, oracle.Decide(cluster, policytest.TrafficOf(t, line)).String()); diff != "" {
			t.Errorf("%s:\n%s", line, diff)
		}
	}
}
