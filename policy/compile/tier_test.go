// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package compile_test

import (
	"testing"

	"github.com/sealane/sealane/internal/ipproto"
	"github.com/sealane/sealane/policy"
	"github.com/sealane/sealane/policy/compile"
	"github.com/sealane/sealane/policy/policytest"
)

// tier allows every peer TCP port 7 and answers the same of everything else, for incoming traffic
// of pods that are called web. Of all others it knows nothing.
type tier policy.Outcome

func (t tier) Evaluate(s compile.Subject, rules *policy.RuleSet) policy.Outcome {
	if s.Direction != policy.Ingress || s.Pod.Name != "web" {
		return policy.Next
	}
	rules.Add(policy.PeerRule{Peer: policy.Peer{Kind: policy.AnyPeer}, Ports: policy.PortSpec{Ranges: []policy.Ports{{Protocol: ipproto.TCP, First: 7, Last: 7}}}})
	return policy.Outcome(t)
}

func TestEarlierTierDecides(t *testing.T) {
	allow80 := `{podSelector: {}, ingress: [{ports: [{port: 80}]}]}`
	for _, tt := range []struct {
		first           policy.Outcome
		policies        []string
		allowed, denied []string
	}{
		{
			policy.Next,
			[]string{allow80},
			[]string{"cart > web tcp/80", "cart > web tcp/7", "cart > db tcp/80"},
			[]string{"cart > web tcp/81", "cart > db tcp/7"},
		},
		{policy.Next, nil, []string{"cart > web tcp/81", "cart > db tcp/7"}, nil},
		{
			policy.Deny,
			[]string{allow80},
			[]string{"cart > web tcp/7", "cart > db tcp/80"},
			[]string{"cart > web tcp/80", "cart > web tcp/81", "cart > db tcp/7"},
		},
		{policy.Deny, nil, []string{"cart > web tcp/7", "cart > db tcp/81"}, []string{"cart > web tcp/81"}},
		{
			policy.Accept,
			[]string{allow80},
			[]string{"cart > web tcp/81", "cart > web icmp", "cart > db tcp/80"},
			[]string{"cart > db tcp/81"},
		},
	} {
		c := compile.NewCompiler()
		c.Put(tier(tt.first))
		tell(t, c, tt.policies...)
		tables := c.Tables()
		for want, lines := range map[bool][]string{true: tt.allowed, false: tt.denied} {
			for _, line := range lines {
				if got := tables.Verdict(policytest.TrafficOf(t, line)).Allowed(); got != want {
					t.Errorf("first tier says %v, then %d policies: %s: allowed is %v", tt.first, len(tt.policies), line, got)
				}
			}
		}
	}
}
