// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package roll decides what the revocation list says: from the list in force,
// the orders to revoke and what is known of nodes and their certificates follows
// the next list, by a pure function. All state is in the list and the orders, so
// that a controller may stop at any point and another one go on.
package roll

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/sealane/sealane/keymgr"
)

const (
	// backdate is how much earlier than they are issued certificates begin.
	backdate = 5 * time.Minute
	// margin keeps what is issued right after a short revocation out of it. What was
	// issued right before is in sight: Kubernetes keeps answered requests for an hour.
	margin = time.Minute
)

// Order is an order to revoke a node, that stands as long as it is there.
type Order struct {
	Node   keymgr.NodeID
	Reason keymgr.RevocationReason
	// Keys and Serials were in the list before, as far as the order remembers.
	Keys    []keymgr.Hash
	Serials []keymgr.CertificateSerial
}

// Facts is what the next list follows from, besides the list in force.
type Facts struct {
	Now         time.Time
	TrustDomain string
	// Lifetime is the longest that a node certificate can be valid.
	Lifetime time.Duration
	// Orders in the order in which they were given.
	Orders []Order
	// Live holds the UIDs of all nodes that there are.
	Live map[string]bool
	// Gone are nodes that were deleted, for sure, and may still have a certificate.
	Gone []keymgr.NodeID
	// Certificates are all verified node certificates that are in sight.
	Certificates []keymgr.NodeCertificate
}

// News is what the next list changes.
type News struct {
	Changed bool
	// Revoked are nodes that were not blocked before, Readmitted those that no
	// longer are, Crowded nodes that are gone and left out because the list is full.
	Revoked, Readmitted, Crowded []keymgr.NodeID
}

// Next returns the list that has to follow old, and what is new in it. Without
// news it is old itself; the zero list is followed by one of no nodes.
func Next(old keymgr.RevocationList, f Facts) (keymgr.RevocationList, News, error) {
	b := newBook(old, f)
	b.order()
	b.bury()
	b.collect()
	nodes := b.close()
	next := keymgr.RevocationList{
		Type: keymgr.RevocationsType, TrustDomain: f.TrustDomain,
		Number:   max(old.Number+1, uint64(max(f.Now.UnixMilli(), 1))),
		IssuedAt: f.Now.UTC().Truncate(time.Second), Nodes: nodes,
	}
	if err := b.fit(&next); err != nil {
		return old, News{}, err
	}
	same, err := sameNodes(old, next)
	if err != nil {
		return old, News{}, err
	}
	if same && old.Number > 0 {
		return old, News{}, nil
	}
	b.news.Changed = true
	return next, b.news, nil
}

// book is a list that is being written.
type book struct {
	facts   Facts
	entries map[string]keymgr.RevokedNode // by UID
	ordered map[string]bool               // UIDs
	news    News
}

func newBook(old keymgr.RevocationList, f Facts) *book {
	f.Now = f.Now.UTC().Truncate(time.Second)
	b := &book{facts: f, entries: map[string]keymgr.RevokedNode{}, ordered: map[string]bool{}}
	for _, n := range old.Nodes {
		n.Keys, n.Serials = slices.Clone(n.Keys), slices.Clone(n.Serials)
		b.entries[n.UID] = n
	}
	return b
}

// order blocks the nodes that there is an order for. Of two orders for one node,
// the earlier one gives the reason.
func (b *book) order() {
	for _, o := range b.facts.Orders {
		e := b.block(o.Node, o.Reason)
		if !b.ordered[o.Node.UID] {
			e.Reason = o.Reason
		}
		b.ordered[o.Node.UID] = true
		e.Keys, e.Serials = merge(e.Keys, o.Keys), merge(e.Serials, o.Serials)
		end := e.At.Add(b.facts.Lifetime + keymgr.DefaultGrace + 2*keymgr.ClockSkew)
		e.Expires = later(e.Expires, end)
		b.entries[o.Node.UID] = e
	}
}

// bury blocks the identities of nodes that were deleted. Their certificates are
// worth nothing to other nodes, which look at the live Node, and may be to others.
func (b *book) bury() {
	for _, id := range b.facts.Gone {
		if _, known := b.entries[id.UID]; !known {
			b.entries[id.UID] = b.block(id, keymgr.ReasonCessationOfOperation)
		}
	}
}

// block returns the node's entry, blocked.
func (b *book) block(id keymgr.NodeID, reason keymgr.RevocationReason) keymgr.RevokedNode {
	e := b.entries[id.UID]
	if e.Blocked {
		return e
	}
	b.news.Revoked = append(b.news.Revoked, id)
	e.Name, e.UID, e.Reason, e.Blocked = id.Name, id.UID, reason, true
	e.At, e.Before, e.Expires = b.facts.Now, b.facts.Now.Add(-backdate-margin), later(e.Expires, b.facts.Now)
	return e
}

// collect takes in the certificates of blocked nodes. A node that is about to be
// readmitted still counts: what it has now, it got before.
func (b *book) collect() {
	for _, c := range b.facts.Certificates {
		e, known := b.entries[c.Node.UID]
		if !known || !e.Blocked {
			continue
		}
		e.Keys = merge(e.Keys, []keymgr.Hash{c.SPKI})
		e.Serials = merge(e.Serials, []keymgr.CertificateSerial{{Issuer: c.Issuer, Serial: c.Serial}})
		e.Expires = later(e.Expires, c.NotAfter.UTC().Add(keymgr.ClockSkew))
		b.entries[c.Node.UID] = e
	}
}

// close readmits nodes without an order, drops what has expired, and sorts.
func (b *book) close() []keymgr.RevokedNode {
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

// fit leaves out nodes that are gone, those first that expire first, until the
// list is no larger than readers take. Orders are never left out.
func (b *book) fit(l *keymgr.RevocationList) error {
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

// merge adds what is new. When there is no more room, the oldest go: they are the
// first to expire.
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

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
