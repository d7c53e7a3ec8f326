// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"testing"
	"time"
)

// TestPolicySurvivesRestart ends the daemons in each way while policies are in
// force: what is allowed goes on without a loss, what is denied stays denied.
func TestPolicySurvivesRestart(t *testing.T) {
	m := newMesh(t, "e2e-restart")
	bringProbe(t)
	a, outside := newAPI(t), namespace(t, "e2e-restart-out")
	a.policy(t, m.ns, "deny", denyAll())
	inside := []object{{"podSelector": object{}}}
	a.policy(t, m.ns, "mesh", object{
		"podSelector": object{}, "ingress": []object{{"from": inside}}, "egress": []object{{"to": inside}},
		"policyTypes": []string{"Ingress", "Egress"},
	})
	// The sink is one of those that only their own namespace may reach; strangers
	// on its node and on others send to it all the time.
	sink := stations(t, m.ns, probe{Name: "sink", Node: m.nodes[len(m.nodes)-1]})["sink"]
	var strangers []probe
	for _, n := range m.nodes {
		strangers = append(strangers, probe{Name: n, Node: n})
	}
	senders := stations(t, outside, strangers...)
	var targets []string
	for _, ip := range sink.ips {
		targets = append(targets, at(ip, 7000))
	}
	bombard := func(what []string) {
		for _, s := range senders {
			if err := s.order("bombard", object{"targets": what, "everyMS": 5}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	came := func() (n int) {
		for _, s := range senders {
			n += from(sink.seen(t), s.ips)
		}
		return n
	}
	bombard(targets)
	a.policy(t, m.ns, "strangers", object{"podSelector": object{}, "ingress": []object{{}}})
	eventually(t, 10*time.Second, "strangers are counted", func() error { return unless(came() > 0, "none came") })
	a.deletePolicy(t, m.ns, "strangers")
	before := -1
	eventually(t, 10*time.Second, "strangers are denied", func() error {
		last := before
		before = came()
		return unless(before == last, "still some came")
	})
	for name, happen := range map[string]func(){
		"killed": func() {
			for _, n := range m.nodes {
				onNode(t, n, agentPID+" | xargs -r kill -9")
			}
			time.Sleep(2 * time.Second) // until kubelet has seen it
			waitForAgents(t)
		},
		"restarted": func() {
			kubectl(t, "-n", "sealane-system", "rollout", "restart", "daemonset/sealane-agent")
			waitForAgents(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			m.under(t, 35, "both", happen)
			if n := came() - before; n != 0 {
				t.Errorf("%d packets of strangers came", n)
			}
		})
	}
	bombard(nil)
}

func unless(fine bool, otherwise string) error {
	if fine {
		return nil
	}
	return errText(otherwise)
}

type errText string

func (e errText) Error() string { return string(e) }
