// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package revocation computes the next revocation list, by a pure function of the list
// in force, the orders to revoke, and what is known of nodes and their certificates. All
// state is in the list and the orders, so a controller may stop at any point and another
// one can continue.
package revocation

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/sealane/sealane/internal/times"
	"github.com/sealane/sealane/keymgr"
)

const (
	// backdate is how long before it is issued a certificate begins.
	backdate = 5 * time.Minute
	// margin keeps a certificate that is issued right after a short revocation valid. One
	// that was issued right before is still in sight, because Kubernetes keeps answered
	// requests for an hour.
	margin = time.Minute
)

// Order is an order to revoke a node. The node stays revoked as long as its order exists.
type Order struct {
	Node   keymgr.NodeID
	Reason keymgr.RevocationReason
	// Keys and Serials are those of the node's list entry, as far as the order remembers
	// them.
	Keys    []keymgr.Hash
	Serials []keymgr.CertificateSerial
}

// Facts is what the next list depends on, besides the list in force.
type Facts struct {
	Now         time.Time
	TrustDomain string
	// Lifetime is the longest lifetime of a node certificate.
	Lifetime time.Duration
	// Orders are the orders in force, oldest first.
	Orders []Order
	// Live holds the UIDs of all nodes that exist.
	Live map[string]bool
	// Gone are nodes that were certainly deleted and may still have a certificate.
	Gone []keymgr.NodeID
	// Certificates are all verified node certificates that the controller can see.
	Certificates []keymgr.NodeCertificate
}

// News is what the next list changes.
type News struct {
	// Changed says that the next list differs from the one before.
	Changed bool
	// Revoked are the nodes that were not blocked before.
	Revoked []keymgr.NodeID
	// Readmitted are the nodes that are not blocked any more.
	Readmitted []keymgr.NodeID
	// Crowded are deleted nodes that were left out because the list is full.
	Crowded []keymgr.NodeID
}

// Number returns the number of the list that follows one with the number last: that of the
// clock, and higher than last. Readers refuse numbers from the future, so that one of them,
// from a time when the clock was ahead, is not counted on from.
func Number(last uint64, now time.Time) uint64 {
	number := uint64(max(now.UnixMilli(), 1))
	if keymgr.CheckNumber(last, now) == nil {
		number = max(number, last+1)
	}
	return number
}

// Next returns the list that follows old, and what is new in it. If nothing is new, it
// returns old itself; the zero list is followed by one without nodes, and one from the future
// by one that readers take.
func Next(old keymgr.RevocationList, f Facts) (keymgr.RevocationList, News, error) {
	b := newListBuilder(old, f)
	b.blockOrdered()
	b.blockDeleted()
	b.addCertificates()
	nodes := b.finish()
	next := keymgr.RevocationList{
		Type: keymgr.RevocationsType, TrustDomain: f.TrustDomain,
		Number:   Number(old.Number, f.Now),
		IssuedAt: f.Now.UTC().Truncate(time.Second), Nodes: nodes,
	}
	if err := b.fit(&next); err != nil {
		return old, News{}, err
	}
	same, err := sameNodes(old, next)
	if err != nil {
		return old, News{}, err
	}
	if same && old.Number > 0 && keymgr.CheckNumber(old.Number, f.Now) == nil {
		return old, News{}, nil
	}
	b.news.Changed = true
	return next, b.news, nil
}

// listBuilder is a list under construction.
type listBuilder struct {
	facts   Facts
	entries map[string]keymgr.RevokedNode // by UID
	ordered map[string]bool               // UIDs
	news    News
}

func newListBuilder(old keymgr.RevocationList, f Facts) *listBuilder {
	f.Now = f.Now.UTC().Truncate(time.Second)
	b := &listBuilder{facts: f, entries: map[string]keymgr.RevokedNode{}, ordered: map[string]bool{}}
	for _, n := range old.Nodes {
		n.Keys, n.Serials = slices.Clone(n.Keys), slices.Clone(n.Serials)
		b.entries[n.UID] = n
	}
	return b
}

// blockOrdered blocks the nodes that have an order. Of two orders for one node, the
// earlier one gives the reason.
func (b *listBuilder) blockOrdered() {
	for _, o := range b.facts.Orders {
		e := b.block(o.Node, o.Reason)
		if !b.ordered[o.Node.UID] {
			e.Reason = o.Reason
		}
		b.ordered[o.Node.UID] = true
		e.Keys, e.Serials = merge(e.Keys, o.Keys), merge(e.Serials, o.Serials)
		end := e.At.Add(b.facts.Lifetime + keymgr.DefaultGrace + 2*keymgr.ClockSkew)
		e.Expires = times.Later(e.Expires, end)
		b.entries[o.Node.UID] = e
	}
}

// blockDeleted blocks the identities of nodes that were deleted. Other nodes refuse their
// certificates anyway, because there is no live Node, but other readers may not.
func (b *listBuilder) blockDeleted() {
	for _, id := range b.facts.Gone {
		if _, known := b.entries[id.UID]; !known {
			b.entries[id.UID] = b.block(id, keymgr.ReasonCessationOfOperation)
		}
	}
}

// block returns the node's entry, blocked.
func (b *listBuilder) block(id keymgr.NodeID, reason keymgr.RevocationReason) keymgr.RevokedNode {
	e := b.entries[id.UID]
	if e.Blocked {
		return e
	}
	b.news.Revoked = append(b.news.Revoked, id)
	e.Name, e.UID, e.Reason, e.Blocked = id.Name, id.UID, reason, true
	e.At, e.Before, e.Expires = b.facts.Now, b.facts.Now.Add(-backdate-margin), times.Later(e.Expires, b.facts.Now)
	return e
}

// addCertificates adds the certificates of blocked nodes to their entries. A node that
// is about to be readmitted still counts: it got its certificates before.
func (b *listBuilder) addCertificates() {
	for _, c := range b.facts.Certificates {
		e, known := b.entries[c.Node.UID]
		if !known || !e.Blocked {
			continue
		}
		e.Keys = merge(e.Keys, []keymgr.Hash{c.SPKI})
		e.Serials = merge(e.Serials, []keymgr.CertificateSerial{{Issuer: c.Issuer, Serial: c.Serial}})
		e.Expires = times.Later(e.Expires, c.NotAfter.UTC().Add(keymgr.ClockSkew))
		b.entries[c.Node.UID] = e
	}
}

// finish readmits live nodes without an order, drops expired entries, and sorts.
func (b *listBuilder) finish() []keymgr.RevokedNode {
	nodes := []keymgr.RevokedNode{}
	for uid, e := range b.entries {
		if !b.ordered[uid] && b.facts.Now.After(e.Expires) {
			continue
		}
		if e.Blocked && !b.ordered[uid] && b.facts.Live[uid] {
			e.Blocked = false
			b.news.Readmitted = append(b.news.Readmitted, e.ID())
		}
		nodes = append(nodes, e)
	}
	slices.SortFunc(nodes, func(a, b keymgr.RevokedNode) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
	})
	return nodes
}

// fit leaves out deleted nodes, beginning with those that expire first, until the list
// is no larger than readers accept. It never leaves out a node with an order.
func (b *listBuilder) fit(l *keymgr.RevocationList) error {
	payload, err := l.Encode()
	if err != nil {
		return err
	}
	over := len(payload) - keymgr.MaxRevocations
	if over <= 0 {
		return nil
	}
	var gone []keymgr.RevokedNode
	for _, n := range l.Nodes {
		if !b.ordered[n.UID] && !b.facts.Live[n.UID] {
			gone = append(gone, n)
		}
	}
	slices.SortStableFunc(gone, func(a, b keymgr.RevokedNode) int { return a.Expires.Compare(b.Expires) })
	for _, n := range gone {
		entry, err := json.Marshal(n)
		if err != nil {
			return fmt.Errorf("encode node %s: %w", n.ID(), err)
		}
		b.news.Crowded = append(b.news.Crowded, n.ID())
		l.Nodes = slices.DeleteFunc(l.Nodes, func(o keymgr.RevokedNode) bool { return o.UID == n.UID })
		if over -= len(entry); over <= 0 {
			return nil
		}
	}
	return fmt.Errorf("list of %d revoked nodes: %w: delete revocations of nodes that are gone", len(l.Nodes), keymgr.ErrTooLarge)
}

// merge appends what is new. If there is no more room, it drops the oldest, which expire
// first.
func merge[T comparable](have, more []T) []T {
	for _, m := range more {
		if !slices.Contains(have, m) {
			have = append(have, m)
		}
	}
	return have[max(0, len(have)-keymgr.MaxRevokedKeys):]
}

func sameNodes(a, b keymgr.RevocationList) (bool, error) {
	x, err := keymgr.RevocationList{Nodes: nonNil(a.Nodes)}.Encode()
	if err != nil {
		return false, err
	}
	y, err := keymgr.RevocationList{Nodes: nonNil(b.Nodes)}.Encode()
	return bytes.Equal(x, y), err
}

func nonNil(nodes []keymgr.RevokedNode) []keymgr.RevokedNode {
	if nodes == nil {
		return []keymgr.RevokedNode{}
	}
	return nodes
}
