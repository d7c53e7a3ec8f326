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

// classBook parts the addresses by the ipBlocks in use. Every cidr and every
// except is a prefix; all addresses whose longest prefix is one of them are in
// the same blocks, which are the prefix's class.
type classBook struct {
	sorted  []netip.Prefix // so that what lies within a prefix follows it
	nodes   map[netip.Prefix]*classNode
	lengths [2][129]int // how many prefixes there are of each length, by family
	byKey   map[string]*peer
	changed map[netip.Prefix]struct{} // cidrs of blocks that came or went
}

type classNode struct {
	refs   int // blocks that have it as cidr or except
	blocks map[*criterion]struct{}
	class  *peer // nil: in no block, or not settled yet
}

func newClassBook() classBook {
	return classBook{nodes: map[netip.Prefix]*classNode{}, byKey: map[string]*peer{}, changed: map[netip.Prefix]struct{}{}}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func (b *classBook) add(cr *criterion) {
	b.hold(cr.spec.CIDR).blocks[cr] = struct{}{}
	for _, except := range cr.spec.Except {
		b.hold(except)
	}
	b.changed[cr.spec.CIDR] = struct{}{}
}

func (b *classBook) remove(cr *criterion) {
	delete(b.nodes[cr.spec.CIDR].blocks, cr)
	b.nodes[cr.spec.CIDR].refs--
	for _, except := range cr.spec.Except {
		b.nodes[except].refs--
	}
	b.changed[cr.spec.CIDR] = struct{}{}
}

func (b *classBook) hold(p netip.Prefix) *classNode {
	node := b.nodes[p]
	if node == nil {
		node = &classNode{blocks: map[*criterion]struct{}{}}
		b.nodes[p] = node
		b.lengths[family(p.Addr())][p.Bits()]++
		at, _ := slices.BinarySearchFunc(b.sorted, p, netip.Prefix.Compare)
		b.sorted = slices.Insert(b.sorted, at, p)
	}
	node.refs++
	return node
}

func (b *classBook) drop(p netip.Prefix) {
	delete(b.nodes, p)
	b.lengths[family(p.Addr())][p.Bits()]--
	at, _ := slices.BinarySearchFunc(b.sorted, p, netip.Prefix.Compare)
	b.sorted = slices.Delete(b.sorted, at, at+1)
}

// within returns the prefixes that lie in one, which may be gone itself.
func (b *classBook) within(outer netip.Prefix) []netip.Prefix {
	from, _ := slices.BinarySearchFunc(b.sorted, outer, netip.Prefix.Compare)
	to := from
	for to < len(b.sorted) && b.sorted[to].Bits() >= outer.Bits() && outer.Contains(b.sorted[to].Addr()) {
		to++
	}
	return b.sorted[from:to]
}

// blocksOf returns the blocks that hold a prefix, in order.
func (b *classBook) blocksOf(p netip.Prefix) []*criterion {
	var blocks []*criterion
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
	slices.SortFunc(blocks, func(a, b *criterion) int { return cmp.Compare(a.spec.Key, b.spec.Key) })
	return blocks
}

func excludes(except []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(except, func(e netip.Prefix) bool { return e.Bits() <= p.Bits() && e.Contains(p.Addr()) })
}

func classKey(blocks []*criterion) string {
	var b strings.Builder
	b.WriteString("addresses in")
	for _, cr := range blocks {
		b.WriteString("; " + cr.spec.Key)
	}
	return b.String()
}

// settleClasses gives every prefix that a changed block may hold its class. A
// prefix between others changes the classes of the longer ones as well: all
// within the block's cidr are looked at.
func (c *Compiler) settleClasses() {
	todo := map[netip.Prefix]struct{}{}
	for cidr := range c.classes.changed {
		for _, p := range c.classes.within(cidr) {
			todo[p] = struct{}{}
		}
	}
	c.classes.changed = map[netip.Prefix]struct{}{}
	for p := range todo {
		c.settleClass(p)
	}
}

func (c *Compiler) settleClass(p netip.Prefix) {
	node := c.classes.nodes[p]
	old := node.class
	if node.refs == 0 {
		c.classes.drop(p)
		c.blocks.remove(p)
	} else {
		node.class = c.acquireClass(c.classes.blocksOf(p))
		c.blocks.set(p, node.class.number())
	}
	if old != nil {
		c.releaseClass(old)
	}
}

func (p *peer) number() policy.ID {
	if p == nil {
		return policy.NoBlock
	}
	return p.id
}

func (c *Compiler) acquireClass(blocks []*criterion) *peer {
	if len(blocks) == 0 {
		return nil
	}
	key := classKey(blocks)
	class := c.classes.byKey[key]
	if class == nil {
		class = &peer{key: key, id: c.peers.numbers.claim(key), criteria: map[*criterion]struct{}{}}
		c.classes.byKey[key] = class
		for _, cr := range blocks {
			link(cr, class)
			c.touchSets(cr, class)
		}
	}
	class.refs++
	return class
}

func (c *Compiler) releaseClass(class *peer) {
	if class.refs--; class.refs > 0 {
		return
	}
	delete(c.classes.byKey, class.key)
	c.retire(class)
}
