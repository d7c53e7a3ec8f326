// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package compile

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/sealane/sealane/policy"
)

// groupIndex parts the addresses by the ipBlocks in use. Every cidr and every
// except is a prefix; all addresses whose longest prefix is one of them are in
// the same blocks, which are the prefix's group.
type groupIndex struct {
	sorted  []netip.Prefix // so that what lies within a prefix follows it
	nodes   map[netip.Prefix]*groupNode
	lengths [2][129]int // how many prefixes there are of each length, by family
	byKey   map[string]*peer
	changed map[netip.Prefix]struct{} // cidrs of blocks that came or went
}

type groupNode struct {
	refs   int // blocks that have it as cidr or except
	blocks map[*selector]struct{}
	group  *peer // nil: in no block, or not settled yet
}

func newGroupIndex() groupIndex {
	return groupIndex{nodes: map[netip.Prefix]*groupNode{}, byKey: map[string]*peer{}, changed: map[netip.Prefix]struct{}{}}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func (b *groupIndex) add(cr *selector) {
	b.hold(cr.spec.CIDR).blocks[cr] = struct{}{}
	for _, except := range cr.spec.Except {
		b.hold(except)
	}
	b.changed[cr.spec.CIDR] = struct{}{}
}

func (b *groupIndex) remove(cr *selector) {
	delete(b.nodes[cr.spec.CIDR].blocks, cr)
	b.nodes[cr.spec.CIDR].refs--
	for _, except := range cr.spec.Except {
		b.nodes[except].refs--
	}
	b.changed[cr.spec.CIDR] = struct{}{}
}

func (b *groupIndex) hold(p netip.Prefix) *groupNode {
	node := b.nodes[p]
	if node == nil {
		node = &groupNode{blocks: map[*selector]struct{}{}}
		b.nodes[p] = node
		b.lengths[family(p.Addr())][p.Bits()]++
		at, _ := slices.BinarySearchFunc(b.sorted, p, netip.Prefix.Compare)
		b.sorted = slices.Insert(b.sorted, at, p)
	}
	node.refs++
	return node
}

func (b *groupIndex) drop(p netip.Prefix) {
	delete(b.nodes, p)
	b.lengths[family(p.Addr())][p.Bits()]--
	at, _ := slices.BinarySearchFunc(b.sorted, p, netip.Prefix.Compare)
	b.sorted = slices.Delete(b.sorted, at, at+1)
}

// within returns the prefixes that lie in one, which may be gone itself.
func (b *groupIndex) within(outer netip.Prefix) []netip.Prefix {
	from, _ := slices.BinarySearchFunc(b.sorted, outer, netip.Prefix.Compare)
	to := from
	for to < len(b.sorted) && b.sorted[to].Bits() >= outer.Bits() && outer.Contains(b.sorted[to].Addr()) {
		to++
	}
	return b.sorted[from:to]
}

// blocksOf returns the blocks that hold a prefix, in order.
func (b *groupIndex) blocksOf(p netip.Prefix) []*selector {
	var blocks []*selector
	for bits := range p.Bits() + 1 {
		if b.lengths[family(p.Addr())][bits] == 0 {
			continue
		}
		node := b.nodes[netip.PrefixFrom(p.Addr(), bits).Masked()]
		if node == nil {
			continue
		}
		for cr := range node.blocks {
			if !excludes(cr.spec.Except, p) {
				blocks = append(blocks, cr)
			}
		}
	}
	slices.SortFunc(blocks, func(a, b *selector) int { return cmp.Compare(a.spec.Key, b.spec.Key) })
	return blocks
}

func excludes(except []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(except, func(e netip.Prefix) bool { return e.Bits() <= p.Bits() && e.Contains(p.Addr()) })
}

func groupKey(blocks []*selector) string {
	var b strings.Builder
	b.WriteString("addresses in")
	for _, cr := range blocks {
		b.WriteString("; " + cr.spec.Key)
	}
	return b.String()
}

// settleGroups gives every prefix that a changed block may hold its group. A
// prefix between others changes the groups of the longer ones as well: all
// within the block's cidr are looked at.
func (c *Compiler) settleGroups() {
	todo := map[netip.Prefix]struct{}{}
	for cidr := range c.groups.changed {
		for _, p := range c.groups.within(cidr) {
			todo[p] = struct{}{}
		}
	}
	c.groups.changed = map[netip.Prefix]struct{}{}
	for p := range todo {
		c.settleGroup(p)
	}
}

func (c *Compiler) settleGroup(p netip.Prefix) {
	node := c.groups.nodes[p]
	old := node.group
	if node.refs == 0 {
		c.groups.drop(p)
		c.blocks.remove(p)
	} else {
		node.group = c.acquireGroup(c.groups.blocksOf(p))
		c.blocks.set(p, node.group.number())
	}
	if old != nil {
		c.releaseGroup(old)
	}
}

func (p *peer) number() policy.PeerID {
	if p == nil {
		return policy.NoBlock
	}
	return p.id
}

func (c *Compiler) acquireGroup(blocks []*selector) *peer {
	if len(blocks) == 0 {
		return nil
	}
	key := groupKey(blocks)
	group := c.groups.byKey[key]
	if group == nil {
		group = &peer{key: key, id: c.peers.numbers.claim(key), selectors: map[*selector]struct{}{}}
		c.groups.byKey[key] = group
		for _, cr := range blocks {
			link(cr, group)
			c.touchSets(cr, group)
		}
	}
	group.refs++
	return group
}

func (c *Compiler) releaseGroup(group *peer) {
	if group.refs--; group.refs > 0 {
		return
	}
	delete(c.groups.byKey, group.key)
	c.retire(group)
}
