// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package compile

import "github.com/sealane/sealane/policy"

// ruleSet is a [policy.RuleSet] that is in use.
type ruleSet struct {
	key       string
	id        policy.SetID
	refs      int // endpoint policies, each of their four parts for itself
	any       policy.PortsID
	pods      policy.PortsID
	selectors map[*selector]policy.PortSpec
}

// pair is a rule that may have changed.
type pair struct {
	set  *ruleSet
	peer *peer
}

func (c *Compiler) acquireSet(d *policy.RuleSet) *ruleSet {
	key := d.Key()
	set := c.sets[key]
	if set == nil {
		set = c.makeSet(key, d)
	}
	set.refs++
	return set
}

func (c *Compiler) makeSet(key string, d *policy.RuleSet) *ruleSet {
	set := &ruleSet{key: key, id: policy.Closed, selectors: map[*selector]policy.PortSpec{}}
	c.sets[key] = set
	if !d.Empty() {
		set.id = c.setNumbers.claim(key)
	}
	if set.id == 0 {
		set.id = policy.Closed // refused: the pod is isolated all the same
	}
	if set.id == policy.Closed {
		c.closed++
		c.setTable.set(policy.Closed, policy.Set{})
		return set
	}
	set.any, set.pods = c.ports.acquire(d.Any), c.ports.acquire(d.Pods)
	c.setTable.set(set.id, policy.Set{Any: set.any, Pods: set.pods})
	for _, r := range d.Selected {
		cr := c.acquireSelector(r.Peer, set)
		set.selectors[cr] = r.Ports
	}
	return set
}

func (c *Compiler) releaseSet(set *ruleSet) {
	if set.refs--; set.refs > 0 {
		return
	}
	delete(c.sets, set.key)
	if set.id == policy.Closed {
		c.setNumbers.release(set.key, 0)
		if c.closed--; c.closed == 0 {
			c.setTable.remove(policy.Closed)
		}
		return
	}
	for cr := range set.selectors {
		c.releaseSelector(cr, set)
	}
	c.ports.release(set.any)
	c.ports.release(set.pods)
	c.setNumbers.release(set.key, set.id)
	c.setTable.remove(set.id)
}

// settleRules makes the rules that may have changed what they are now.
func (c *Compiler) settleRules() {
	for t := range c.touched {
		if t.set.refs > 0 && !t.peer.gone && t.peer.id != 0 {
			c.settleRule(t.set, t.peer)
		}
	}
	c.touched = map[pair]struct{}{}
}

func (c *Compiler) settleRule(set *ruleSet, p *peer) {
	var ports policy.PortSpec
	if len(p.selectors) < len(set.selectors) {
		for cr := range p.selectors {
			ports = ports.Union(set.selectors[cr].Resolve(p.ports))
		}
	} else {
		for cr, allowed := range set.selectors {
			if _, met := p.selectors[cr]; met {
				ports = ports.Union(allowed.Resolve(p.ports))
			}
		}
	}
	id := c.ports.acquire(ports)
	if id == policy.NoPorts {
		c.dropRule(set, p)
		return
	}
	key := policy.Rule{Set: set.id, Peer: p.id}
	old := c.rules.now[key]
	c.rules.set(key, id)
	c.ports.release(old)
}

func (c *Compiler) dropRule(set *ruleSet, p *peer) {
	key := policy.Rule{Set: set.id, Peer: p.id}
	if old, present := c.rules.now[key]; present {
		c.rules.remove(key)
		c.ports.release(old)
	}
}
