// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// draft is all that the policies of a pod allow in one direction: what a rule
// set is made of. Equal drafts are one set, whichever policies they come from.
type draft struct {
	any, pods allowance
	selected  map[string]rule // by the peer's canonical form
}

// draftOf unites the rules of policies for a pod. What comes in comes to the
// pod's own ports, so its names are resolved here; what goes out goes to the
// peer's, which are resolved peer by peer.
func draftOf(policies []*compiled, d direction, pod *Pod) *draft {
	out := &draft{selected: map[string]rule{}}
	for _, policy := range policies {
		for _, r := range policy.rules[d] {
			if d == ingress {
				r.ports = r.ports.resolve(pod.Ports)
			}
			out.add(r)
		}
	}
	out.prune()
	return out
}

// prune leaves out what is allowed anyway, so that a rule that allows
// everything to all does not keep thousands of others in the tables.
func (d *draft) prune() {
	if d.any.all {
		d.pods, d.selected = allowance{}, nil
	}
	if d.pods.all {
		maps.DeleteFunc(d.selected, func(_ string, r rule) bool { return r.peer.kind == selected })
	}
}

func (d *draft) add(r rule) {
	numbers, names := r.ports.split()
	switch r.peer.kind {
	case anyPeer:
		d.any = d.any.union(numbers)
		d.addSelected(allPods(), names) // only pods have names for ports
	case everyPod:
		d.pods = d.pods.union(numbers)
		d.addSelected(allPods(), names)
	case selected:
		d.addSelected(r.peer, r.ports)
	case block:
		d.addSelected(r.peer, numbers)
	}
}

func (d *draft) addSelected(peer peerSpec, ports allowance) {
	if !ports.empty() {
		d.selected[peer.key] = rule{peer, d.selected[peer.key].ports.union(ports)}
	}
}

func (d *draft) key() string {
	var b strings.Builder
	fmt.Fprintf(&b, "any%s\npods%s\n", d.any.key(), d.pods.key())
	for _, k := range slices.Sorted(maps.Keys(d.selected)) {
		fmt.Fprintf(&b, "%s%s\n", k, d.selected[k].ports.key())
	}
	return b.String()
}

// ruleSet is a draft that is in use.
type ruleSet struct {
	key      string
	id       ID
	refs     int // guards, each of its four parts for itself
	any      ID
	pods     ID
	criteria map[*criterion]allowance
}

// pair is a rule that may have changed.
type pair struct {
	set  *ruleSet
	peer *peer
}

func (c *Compiler) acquireSet(d *draft) *ruleSet {
	key := d.key()
	set := c.sets[key]
	if set == nil {
		set = c.makeSet(key, d)
	}
	set.refs++
	return set
}

func (c *Compiler) makeSet(key string, d *draft) *ruleSet {
	empty := d.any.empty() && d.pods.empty() && len(d.selected) == 0
	set := &ruleSet{key: key, id: Closed, criteria: map[*criterion]allowance{}}
	c.sets[key] = set
	if !empty {
		set.id = c.setNumbers.claim(key)
	}
	if set.id == 0 {
		set.id = Closed // refused: the pod is isolated all the same
	}
	if set.id == Closed {
		c.closed++
		c.setTable.set(Closed, Set{})
		return set
	}
	set.any, set.pods = c.ports.acquire(d.any), c.ports.acquire(d.pods)
	c.setTable.set(set.id, Set{Any: set.any, Pods: set.pods})
	for _, r := range d.selected {
		cr := c.acquireCriterion(r.peer, set)
		set.criteria[cr] = r.ports
	}
	return set
}

func (c *Compiler) releaseSet(set *ruleSet) {
	if set.refs--; set.refs > 0 {
		return
	}
	delete(c.sets, set.key)
	if set.id == Closed {
		c.setNumbers.release(set.key, 0)
		if c.closed--; c.closed == 0 {
			c.setTable.remove(Closed)
		}
		return
	}
	for cr := range set.criteria {
		c.releaseCriterion(cr, set)
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
	var ports allowance
	if len(p.criteria) < len(set.criteria) {
		for cr := range p.criteria {
			ports = ports.union(set.criteria[cr].resolve(p.ports))
		}
	} else {
		for cr, allowed := range set.criteria {
			if _, met := p.criteria[cr]; met {
				ports = ports.union(allowed.resolve(p.ports))
			}
		}
	}
	id := c.ports.acquire(ports)
	if id == NoPorts {
		c.dropRule(set, p)
		return
	}
	key := Rule{Set: set.id, Peer: p.id}
	old := c.rules.now[key]
	c.rules.set(key, id)
	c.ports.release(old)
}

func (c *Compiler) dropRule(set *ruleSet, p *peer) {
	key := Rule{Set: set.id, Peer: p.id}
	if old, present := c.rules.now[key]; present {
		c.rules.remove(key)
		c.ports.release(old)
	}
}
