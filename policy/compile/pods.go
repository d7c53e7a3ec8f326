// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package compile

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/sealane/sealane/policy"
)

// podState is a pod as it was told, and what of it is in the tables.
type podState struct {
	policy.Pod
	gone      bool
	identity  *peer
	addresses []netip.Addr // that it claims in owners
	ruleSets  [4]*ruleSet  // as in EndpointPolicy; nil: not isolated
}

// SetPod tells of a new or changed pod. Its labels must not be changed after.
func (c *Compiler) SetPod(pod policy.Pod) {
	pod = pod.Normal()
	name := podName{pod.Namespace, pod.Name}
	state := c.pods[name]
	switch {
	case state == nil:
		state = &podState{}
		c.pods[name] = state
	case !state.gone && samePod(&state.Pod, &pod):
		return
	}
	state.Pod, state.gone = pod, false
	space := c.space(pod.Namespace)
	space.pods[state] = struct{}{}
	delete(space.local, state)
	if pod.Local {
		space.local[state] = struct{}{}
	}
	c.changedPods[state] = struct{}{}
}

// DeletePod forgets a pod.
func (c *Compiler) DeletePod(namespace, name string) {
	state := c.pods[podName{namespace, name}]
	if state == nil || state.gone {
		return
	}
	state.gone = true
	space := c.spaces[namespace]
	delete(space.pods, state)
	delete(space.local, state)
	c.changedPods[state] = struct{}{}
}

func samePod(a, b *policy.Pod) bool {
	return a.UID == b.UID && a.Local == b.Local && a.Created.Equal(b.Created) && maps.Equal(a.Labels, b.Labels) &&
		slices.Equal(a.Ports, b.Ports) && slices.Equal(a.Addresses, b.Addresses)
}

// settle brings the tables up to date with what the compiler was told. New things are made before
// old ones are released, so that what both need is never removed in between. Rule sets that
// endpoint policies leave are released by the next call: until the endpoint policies in the data
// path have left them too, they need rules for the new peers of addresses.
func (c *Compiler) settle() {
	for state := range c.changedPods {
		c.settlePod(state)
	}
	left := c.left
	c.left = nil
	for state := range c.changedSets {
		c.settleSets(state)
	}
	for _, set := range left {
		c.releaseSet(set)
	}
	for addr := range c.readdressed {
		c.settleAddress(addr)
	}
	c.settleGroups()
	c.settleRules()
	// Not clear, which takes as long as a map was ever large.
	c.changedPods, c.changedSets = map[*podState]struct{}{}, map[*podState]struct{}{}
	c.readdressed = map[netip.Addr]struct{}{}
}

func (c *Compiler) settlePod(state *podState) {
	old := state.identity
	state.identity = nil
	if space := c.space(state.Namespace); space.known && !state.gone && len(state.Addresses) > 0 {
		state.identity = c.acquireIdentity(&state.Pod, space)
	}
	if old != nil {
		c.releaseIdentity(old)
	}
	c.claim(state)
	c.changedSets[state] = struct{}{}
	if state.gone {
		delete(c.pods, podName{state.Namespace, state.Name})
		c.forgetEmpty(state.Namespace)
	}
}

// claim brings the owners of addresses up to date with one pod.
func (c *Compiler) claim(state *podState) {
	for _, addr := range state.addresses {
		c.readdressed[addr] = struct{}{}
		rest := slices.DeleteFunc(c.owners[addr], func(s *podState) bool { return s == state })
		if c.owners[addr] = rest; len(rest) == 0 {
			delete(c.owners, addr)
		}
	}
	state.addresses = nil
	if state.gone {
		return
	}
	state.addresses = state.Addresses
	for _, addr := range state.addresses {
		c.readdressed[addr] = struct{}{}
		c.owners[addr] = append(c.owners[addr], state)
	}
}

func (c *Compiler) settleAddress(addr netip.Addr) {
	claims := c.owners[addr]
	if len(claims) == 0 {
		c.identities.remove(addr)
		c.endpoints.remove(addr)
		return
	}
	owner := slices.MaxFunc(claims, newer)
	if owner.identity != nil && owner.identity.id != 0 {
		c.identities.set(addr, owner.identity.id)
	} else {
		c.identities.remove(addr)
	}
	if owner.Local {
		c.endpoints.set(addr, owner.endpointPolicy())
	} else {
		c.endpoints.remove(addr)
	}
}

func newer(a, b *podState) int {
	return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.UID, b.UID),
		cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

func (s *podState) endpointPolicy() policy.EndpointPolicy {
	number := func(set *ruleSet) policy.SetID {
		if set == nil {
			return policy.NotIsolated
		}
		return set.id
	}
	return policy.EndpointPolicy{
		Egress: number(s.ruleSets[0]), Ingress: number(s.ruleSets[1]),
		DryRunEgress: number(s.ruleSets[2]), DryRunIngress: number(s.ruleSets[3]),
	}
}

// settleSets gives a pod of this node its rule sets.
func (c *Compiler) settleSets(state *podState) {
	for _, set := range state.ruleSets {
		if set != nil {
			c.left = append(c.left, set)
		}
	}
	state.ruleSets = [4]*ruleSet{}
	if state.gone || !state.Local || len(state.Addresses) == 0 {
		return
	}
	for i := range state.ruleSets {
		state.ruleSets[i] = c.ruleSetOf(Subject{Pod: &state.Pod, Direction: policy.Direction(i % 2), DryRun: i >= 2})
	}
	for _, addr := range state.addresses {
		c.readdressed[addr] = struct{}{}
	}
}

// ruleSetOf asks the tiers. It returns nil if they accept what no rule allows, for then rules, which
// can only allow, change nothing.
func (c *Compiler) ruleSetOf(s Subject) *ruleSet {
	var rules policy.RuleSet
	for _, tier := range c.tiers {
		switch tier.Evaluate(s, &rules) {
		case policy.Accept:
			return nil
		case policy.Deny:
			rules.Prune()
			return c.acquireSet(&rules)
		case policy.Next:
		}
	}
	return nil
}
