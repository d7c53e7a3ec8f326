// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package compile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/sealane/sealane/policy"
)

// peer is what a rule's peer is in the tables: the identity of pods, or a group
// of addresses.
type peer struct {
	key  string
	id   policy.PeerID // 0: refused, or the group of addresses in no block; no rule is made for it
	refs int
	gone bool

	namespace string // of an identity
	labels    labels.Set
	ports     []policy.NamedPort

	selectors map[*selector]struct{} // those in use that it meets
}

// selector is a selector or an ipBlock that some rule set in use refers to.
// Selectors and peers know of each other, so that whichever of them is new or
// goes is compared with the other side once.
type selector struct {
	spec  policy.Peer
	peers map[*peer]struct{}
	sets  map[*ruleSet]struct{}
}

func link(cr *selector, p *peer) {
	cr.peers[p] = struct{}{}
	p.selectors[cr] = struct{}{}
}

// spaceIndex is the selectors that have one namespaceSelector.
type spaceIndex struct {
	selector  labels.Selector
	selectors map[*selector]struct{}
}

// peerIndex knows the identities of the cluster's pods, and the selectors.
type peerIndex struct {
	numbers    allocator[policy.PeerID] // one for identities and groups: both are peers of rules
	identities map[string]*peer
	selectors  map[string]*selector
	scoped     map[string]map[*selector]struct{} // with podSelector only, by namespace
	spaces     map[string]*spaceIndex            // with namespaceSelector, by its canonical form
}

func newPeerIndex() peerIndex {
	return peerIndex{
		numbers:    newAllocator[policy.PeerID]("peer"),
		identities: map[string]*peer{},
		selectors:  map[string]*selector{},
		scoped:     map[string]map[*selector]struct{}{},
		spaces:     map[string]*spaceIndex{},
	}
}

// identityKey is the canonical form of all that a policy can ask of a pod as a
// peer. Everything is quoted, so that no label can imitate another.
func identityKey(pod *policy.Pod, space labels.Set) string {
	var b strings.Builder
	fmt.Fprintf(&b, "pod of %q", pod.Namespace)
	writeLabels(&b, space)
	b.WriteString(" with")
	writeLabels(&b, pod.Labels)
	for _, p := range pod.Ports {
		fmt.Fprintf(&b, " %d:%q:%d", p.Protocol, p.Name, p.Port)
	}
	return b.String()
}

func writeLabels(b *strings.Builder, set map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(set)) {
		fmt.Fprintf(b, " %q=%q", k, set[k])
	}
}

// acquireIdentity returns the identity of a pod, until it is released as often.
func (c *Compiler) acquireIdentity(pod *policy.Pod, space *namespace) *peer {
	key := identityKey(pod, space.labels)
	p := c.peers.identities[key]
	if p == nil {
		p = &peer{
			key: key, id: c.peers.numbers.claim(key), namespace: pod.Namespace,
			labels: pod.Labels, ports: pod.Ports, selectors: map[*selector]struct{}{},
		}
		c.peers.identities[key] = p
		space.identities[p] = struct{}{}
		c.matchIdentity(p, space.labels)
	}
	p.refs++
	return p
}

func (c *Compiler) releaseIdentity(p *peer) {
	if p.refs--; p.refs > 0 {
		return
	}
	delete(c.peers.identities, p.key)
	delete(c.spaces[p.namespace].identities, p)
	c.retire(p)
}

// matchIdentity compares a new identity with every selector that may select it.
func (c *Compiler) matchIdentity(p *peer, space labels.Set) {
	c.matchAmong(c.peers.scoped[p.namespace], p)
	for _, index := range c.peers.spaces {
		if index.selector.Matches(space) {
			c.matchAmong(index.selectors, p)
		}
	}
}

func (c *Compiler) matchAmong(selectors map[*selector]struct{}, p *peer) {
	for cr := range selectors {
		if cr.spec.Pods.Matches(p.labels) {
			link(cr, p)
			c.touchSets(cr, p)
		}
	}
}

func (c *Compiler) touchSets(cr *selector, p *peer) {
	for set := range cr.sets {
		c.touched[pair{set, p}] = struct{}{}
	}
}

// retire takes a peer that nobody has any more out of everything.
func (c *Compiler) retire(p *peer) {
	p.gone = true
	for cr := range p.selectors {
		delete(cr.peers, p)
		for set := range cr.sets {
			c.dropRule(set, p)
		}
	}
	c.peers.numbers.release(p.key, p.id)
}

// acquireSelector lets a rule set use a selector, which is made and compared
// with all peers if it is new.
func (c *Compiler) acquireSelector(spec policy.Peer, set *ruleSet) *selector {
	cr := c.peers.selectors[spec.Key]
	if cr == nil {
		cr = &selector{spec: spec, peers: map[*peer]struct{}{}, sets: map[*ruleSet]struct{}{}}
		c.peers.selectors[spec.Key] = cr
		if spec.Kind == policy.Block {
			c.groups.add(cr)
		} else {
			c.indexSelector(cr)
			c.matchSelector(cr)
		}
	}
	cr.sets[set] = struct{}{}
	for p := range cr.peers {
		c.touched[pair{set, p}] = struct{}{}
	}
	return cr
}

func (c *Compiler) releaseSelector(cr *selector, set *ruleSet) {
	delete(cr.sets, set)
	for p := range cr.peers {
		c.dropRule(set, p)
	}
	if len(cr.sets) > 0 {
		return
	}
	delete(c.peers.selectors, cr.spec.Key)
	for p := range cr.peers {
		delete(p.selectors, cr)
	}
	if cr.spec.Kind == policy.Block {
		c.groups.remove(cr)
	} else {
		c.unindexSelector(cr)
	}
}

func (c *Compiler) indexSelector(cr *selector) {
	if cr.spec.Spaces == nil {
		scoped := c.peers.scoped[cr.spec.Namespace]
		if scoped == nil {
			scoped = map[*selector]struct{}{}
			c.peers.scoped[cr.spec.Namespace] = scoped
		}
		scoped[cr] = struct{}{}
		return
	}
	index := c.peers.spaces[cr.spec.SpaceKey]
	if index == nil {
		index = &spaceIndex{selector: cr.spec.Spaces, selectors: map[*selector]struct{}{}}
		c.peers.spaces[cr.spec.SpaceKey] = index
	}
	index.selectors[cr] = struct{}{}
}

func (c *Compiler) unindexSelector(cr *selector) {
	if cr.spec.Spaces == nil {
		scoped := c.peers.scoped[cr.spec.Namespace]
		if delete(scoped, cr); len(scoped) == 0 {
			delete(c.peers.scoped, cr.spec.Namespace)
		}
		return
	}
	index := c.peers.spaces[cr.spec.SpaceKey]
	if delete(index.selectors, cr); len(index.selectors) == 0 {
		delete(c.peers.spaces, cr.spec.SpaceKey)
	}
}

func (c *Compiler) matchSelector(cr *selector) {
	if cr.spec.Spaces == nil {
		if space := c.spaces[cr.spec.Namespace]; space != nil {
			matchSpace(cr, space)
		}
		return
	}
	for _, space := range c.spaces {
		// Identities that were made under other labels of the namespace are
		// gone when this is called: pods are settled first.
		if cr.spec.Spaces.Matches(space.labels) {
			matchSpace(cr, space)
		}
	}
}

func matchSpace(cr *selector, space *namespace) {
	for p := range space.identities {
		if cr.spec.Pods.Matches(p.labels) {
			link(cr, p)
		}
	}
}
