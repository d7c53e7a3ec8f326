// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package oracle_test

import (
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sealane/sealane/policy"
	"github.com/sealane/sealane/policy/oracle"
	"github.com/sealane/sealane/policy/policytest"
)

// tier answers the same of all traffic that comes in.
type tier policy.Outcome

func (t tier) Evaluate(_ oracle.Cluster, q oracle.Question) (policy.Outcome, oracle.Reasons) {
	if q.Direction != policy.Ingress {
		return policy.Next, oracle.Reasons{}
	}
	return policy.Outcome(t), oracle.Reasons{Isolating: []string{"first"}, Allowing: []string{"first"}}
}

func TestEarlierTierDecides(t *testing.T) {
	cluster := policytest.Small()
	cluster.Policies = []*networkingv1.NetworkPolicy{policytest.PolicyOf(t, `{podSelector: {}, ingress: [{ports: [{port: 80}]}]}`)}
	for _, tt := range []struct {
		first    policy.Outcome
		line     string
		allowed  bool
		isolator string
	}{
		{policy.Next, "cart > web tcp/80", true, "default/it"},
		{policy.Next, "cart > web tcp/81", false, "default/it"},
		{policy.Next, "web > cart tcp/81", true, ""}, // no tier decides
		{policy.Deny, "cart > web tcp/80", false, "first"},
		{policy.Accept, "cart > web tcp/81", true, "first"},
	} {
		d := oracle.DecideAfter(tier(tt.first), cluster, policytest.TrafficOf(t, tt.line))
		var isolator string
		if isolating := d.Ingress.Now.Isolating; len(isolating) > 0 {
			isolator = isolating[0]
		}
		if d.Allowed() != tt.allowed || isolator != tt.isolator {
			t.Errorf("first tier says %v: %s: want allowed %v by %q:\n%v", tt.first, tt.line, tt.allowed, tt.isolator, d)
		}
	}
}
