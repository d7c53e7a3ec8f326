// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/roll"
)

// Reasons of Events.
const (
	reasonRevoked    = "NodeRevoked"
	reasonReadmitted = "NodeReadmitted"
)

// crlPeriod is how often the CRL is looked after without news.
const crlPeriod = 10 * time.Minute

// Registrar signs revocations.
type Registrar interface {
	// SignRevocations signs the list that nodes follow.
	SignRevocations(l keymgr.RevocationList) (keymgr.Signed, error)
	// Signs tells whether a list is in the name of the CA that issues now.
	Signs(s keymgr.Signed) bool
	// RenewCRL returns old as long as it will do.
	RenewCRL(old []byte, l keymgr.RevocationList) ([]byte, error)
	Bundle() []byte
}

// Notice publishes the list and reports on orders.
type Notice interface {
	PublishRecord(ctx context.Context, r kube.RevocationRecord) (kube.RevocationRecord, error)
	ReportRevocation(ctx context.Context, r kube.Revocation) error
	Node(ctx context.Context, name string) (kube.Node, error)
	DeleteNodeKey(ctx context.Context, name, nodeUID string) error
}

// revoker keeps the published revocation list as orders and nodes demand. It works
// beside the worker: no queue of certificate requests delays it.
type revoker struct {
	registrar   Registrar
	vault       Vault
	requests    RequestFeed
	cluster     ClusterFeed
	notice      Notice
	report      Reporter
	register    *register
	trustDomain string
	lifetime    time.Duration // of certificates, at most
	metrics     *metrics
	log         *slog.Logger
	clock       func() time.Time

	// news has room for one value; whoever has news sends one.
	news chan struct{}
	// last is what this leader has published: newer than what its cache shows, and
	// proof against somebody who puts an older list in its place.
	last published
	// opened is set once last is no older than what the vault has, kept is the
	// number of that.
	opened bool
	kept   uint64
}

// published is a record that was verified.
type published struct {
	record kube.RevocationRecord
	signed keymgr.Signed
	list   keymgr.RevocationList
	// replaced is the version that the record took the place of, until the cache
	// shows the record itself.
	replaced *string
}

// again asks for one more pass.
func (r *revoker) again() {
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// run makes passes until ctx ends: after news, soon after one that failed, and
// now and then.
func (r *revoker) run(ctx context.Context) {
	pause := minPause
	for ctx.Err() == nil {
		next := crlPeriod
		if err := r.pass(ctx); err != nil && ctx.Err() == nil {
			r.metrics.failures.Inc()
			r.log.Warn("revocations not as ordered, will be repeated", keyError, err)
			next, pause = pause, min(2*pause, maxPause)
		} else {
			pause = minPause
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-r.news:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// pass publishes the list that has to be, if it is not there, and then tells what
// it has done.
func (r *revoker) pass(ctx context.Context) error {
	snapshot, complete := r.cluster.Snapshot()
	requests, all := r.requests.Requests()
	if !complete || !all {
		return nil // the end of the first lists is news
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := r.open(ctx); err != nil {
		return err
	}
	now := r.clock()
	before := r.inForce(snapshot.Revoked, now)
	facts, dead, err := r.facts(ctx, before.list, snapshot, requests)
	if err != nil {
		return err
	}
	next, news, err := roll.Next(before.list, facts)
	if err != nil {
		return err
	}
	r.register.decide(next)
	after, err := r.write(ctx, before, next, news.Changed)
	if errors.Is(err, kube.ErrConflict) {
		r.log.Debug("revocation list changed meanwhile", keyError, err)
		return nil // the change is news
	}
	if err != nil {
		return err
	}
	for _, id := range news.Crowded {
		dead[id.UID] = true
	}
	r.last = after
	r.register.publish(after.list, dead)
	r.metrics.revocations(after.list)
	r.tell(ctx, news, snapshot)
	return errors.Join(r.keep(ctx), r.reportOrders(ctx, snapshot.Orders, after.list), r.makeRoom(ctx, snapshot, after.list))
}

// makeRoom removes the NodeKeys of readmitted nodes that a revoked key has signed:
// nobody takes them, and one with a sequence number that a thief has driven up
// could keep the node from publishing anew.
func (r *revoker) makeRoom(ctx context.Context, s kube.Snapshot, l keymgr.RevocationList) error {
	var errs []error
	for _, n := range l.Nodes {
		signed, ok := s.NodeKeys[n.Name]
		if n.Blocked || !ok || s.Claims[n.Name] != n.UID || len(signed.Chain) == 0 {
			continue
		}
		info, err := keymgr.ParseCertificateInfo(signed.Chain[0])
		if err == nil && slices.Contains(n.Keys, keymgr.Hash(info.SPKI)) {
			errs = append(errs, r.notice.DeleteNodeKey(ctx, n.Name, n.UID))
		}
	}
	return errors.Join(errs...)
}

// inForce is the newest list that this leader knows to be real. What cannot be
// verified counts for nothing but the version to replace.
func (r *revoker) inForce(record kube.RevocationRecord, now time.Time) published {
	if record.Version == r.last.record.Version && r.last.list.Number > 0 {
		r.last.replaced = nil
		return r.last
	}
	if r.last.replaced != nil && *r.last.replaced == record.Version {
		return r.last // the cache is behind
	}
	p := published{record: record}
	var err error
	if p.signed, err = keymgr.DecodeSigned(record.List); err == nil {
		p.list, err = keymgr.VerifyRevocations(p.signed, r.registrar.Bundle(), r.trustDomain, now)
	}
	switch {
	case err != nil && record.Version != "":
		r.log.Error("the published revocation list is not ours and will be replaced", keyError, err)
	case err == nil && p.list.Number >= r.last.list.Number:
		return p
	}
	p.signed, p.list = r.last.signed, r.last.list
	p.record.List, p.record.CRL = nil, r.last.record.CRL
	return p
}

// write publishes next with its CRL if anything of it is not published yet. It
// signs anew what another issuer has signed, so that readers can forget that one.
func (r *revoker) write(ctx context.Context, before published, next keymgr.RevocationList, changed bool) (published, error) {
	after := before
	if !changed && !r.registrar.Signs(before.signed) {
		next.Number = max(next.Number+1, uint64(max(r.clock().UnixMilli(), 1)))
		next.IssuedAt = r.clock().UTC().Truncate(time.Second)
		changed = true
	}
	after.list = next
	var err error
	if changed {
		if after.signed, err = r.registrar.SignRevocations(next); err != nil {
			return published{}, err
		}
	}
	if after.record.List, err = keymgr.EncodeSigned(after.signed); err != nil {
		return published{}, err
	}
	if after.record.CRL, err = r.registrar.RenewCRL(before.record.CRL, next); err != nil {
		// Nodes do not need it; whoever does finds the old one running out.
		r.log.Error("no CRL", keyError, err)
		after.record.CRL = before.record.CRL
	}
	if bytes.Equal(after.record.List, before.record.List) && bytes.Equal(after.record.CRL, before.record.CRL) {
		return after, nil
	}
	after.record, err = r.notice.PublishRecord(ctx, after.record)
	after.replaced = &before.record.Version
	return after, err
}

// facts gathers what the list after old follows from, and the nodes that are gone
// and need no entry: they have no certificate that is still good.
func (r *revoker) facts(ctx context.Context, old keymgr.RevocationList, s kube.Snapshot, requests []kube.Request) (roll.Facts, map[string]bool, error) {
	f := roll.Facts{Now: r.clock(), TrustDomain: r.trustDomain, Lifetime: r.lifetime, Live: map[string]bool{}}
	for _, n := range s.Nodes {
		f.Live[n.UID] = true
	}
	wanted := map[string]bool{}
	for _, n := range old.Nodes {
		wanted[n.UID] = n.Blocked
	}
	for _, o := range s.Orders {
		if o.Node.Validate() != nil {
			continue // malformed, and logged by the watch
		}
		wanted[o.Node.UID] = true
		f.Orders = append(f.Orders, roll.Order{Node: o.Node, Reason: o.Reason, Keys: o.Status.Keys, Serials: o.Status.Serials})
	}
	gone, err := r.gone(ctx, s, func(uid string) bool { _, listed := old.Node(uid); return listed || f.Live[uid] })
	if err != nil {
		return f, nil, err
	}
	for uid := range gone {
		wanted[uid] = true
	}
	f.Certificates = r.inSight(s, requests, wanted)
	for _, c := range f.Certificates {
		if gone[c.Node.UID] {
			f.Gone = append(f.Gone, c.Node)
			delete(gone, c.Node.UID)
		}
	}
	return f, gone, nil
}

// lookups bounds how many nodes are looked for in one pass, so that an order to
// revoke does not wait for many that are gone.
const lookups = 10

// gone finds the UIDs of nodes that have left a NodeKey behind. A snapshot may show
// a NodeKey before its node, so each is looked for at the API server first.
func (r *revoker) gone(ctx context.Context, s kube.Snapshot, skip func(uid string) bool) (map[string]bool, error) {
	gone := map[string]bool{}
	left := lookups
	for _, name := range slices.Sorted(maps.Keys(s.Claims)) {
		uid := s.Claims[name]
		switch {
		case skip(uid):
			continue
		case r.register.isSettled(uid):
			gone[uid] = true // looked for before
			continue
		case left == 0:
			r.again() // the others have their turn in the next pass
			return gone, nil
		}
		left--
		live, err := r.notice.Node(ctx, name)
		if err != nil && !errors.Is(err, kube.ErrNotFound) {
			return nil, err
		}
		if err != nil || live.UID != uid {
			gone[uid] = true
		}
	}
	return gone, nil
}

// inSight returns the node certificates of some UIDs that are published or were
// issued lately, and are ours and still good; those that end first come first.
func (r *revoker) inSight(s kube.Snapshot, requests []kube.Request, of map[string]bool) []keymgr.NodeCertificate {
	var chains [][][]byte
	for name, signed := range s.NodeKeys {
		if of[s.Claims[name]] {
			chains = append(chains, signed.Chain)
		}
	}
	for _, q := range requests {
		if uid := q.Extra[ca.ExtraNodeUID]; len(uid) != 1 || !of[uid[0]] {
			continue
		}
		if chain, err := keymgr.DecodeChain(q.Certificate); err == nil {
			chains = append(chains, chain)
		}
	}
	var out []keymgr.NodeCertificate
	for _, chain := range chains {
		if c, err := keymgr.VerifyCertificate(chain, r.registrar.Bundle(), r.clock()); err == nil && of[c.Node.UID] {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b keymgr.NodeCertificate) int {
		return cmp.Or(a.NotAfter.Compare(b.NotAfter), cmp.Compare(a.Serial, b.Serial))
	})
	return out
}

// tell puts what is new where operators look.
func (r *revoker) tell(ctx context.Context, news roll.News, s kube.Snapshot) {
	messages := map[string]string{}
	for _, o := range s.Orders {
		messages[o.Node.UID] = o.Message
	}
	for _, id := range news.Revoked {
		entry, _ := r.last.list.Node(id.UID)
		text := fmt.Sprintf("revoked: %s; list %d has %d of its keys", entry.Reason, r.last.list.Number, len(entry.Keys))
		if m := messages[id.UID]; m != "" {
			text += ": " + m
		}
		r.log.Warn("node revoked", keyNode, id.Name, keyReason, entry.Reason)
		r.report.Event(ctx, kube.EventSpec{
			Kind: kube.KindNode, Name: id.Name, UID: id.UID, Type: kube.EventWarning, Reason: reasonRevoked, Message: text,
		})
	}
	for _, id := range news.Readmitted {
		r.log.Info("node readmitted", keyNode, id.Name)
		r.report.Event(ctx, kube.EventSpec{
			Kind: kube.KindNode, Name: id.Name, UID: id.UID, Type: kube.EventNormal, Reason: reasonReadmitted,
			Message: fmt.Sprintf("readmitted by list %d; its old keys stay revoked", r.last.list.Number),
		})
	}
	for _, id := range news.Crowded {
		r.log.Warn("revocation list is full: a node that is gone is left out", keyNode, id.Name)
	}
}

// reportOrders writes into each order that it is carried out, with the number of
// the first list that did, and what is known of the node's certificates.
func (r *revoker) reportOrders(ctx context.Context, orders []kube.Revocation, l keymgr.RevocationList) error {
	var errs []error
	for _, o := range orders {
		entry, listed := l.Node(o.Node.UID)
		if !listed {
			continue
		}
		have := o.Status
		if !o.Status.Listed() {
			o.Status.Number, o.Status.RevokedAt = l.Number, entry.At
		}
		o.Status.Keys, o.Status.Serials = entry.Keys, entry.Serials
		if have.Listed() && slices.Equal(have.Keys, entry.Keys) && slices.Equal(have.Serials, entry.Serials) {
			continue
		}
		if err := r.notice.ReportRevocation(ctx, o); err != nil && !errors.Is(err, kube.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
