// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package revocation

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/revocation"
)

// Reasons of Events.
const (
	reasonRevoked    = "NodeRevoked"
	reasonReadmitted = "NodeReadmitted"
)

// report logs what is new and creates an Event for it on the node.
func (r *Revoker) report(ctx context.Context, news revocation.News, s cluster.Snapshot) {
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
		r.Log.Warn("node revoked", keyNode, id.Name, keyReason, entry.Reason)
		r.Events.Event(ctx, kube.EventSpec{
			Kind: kube.KindNode, Name: id.Name, UID: id.UID, Type: kube.EventWarning, Reason: reasonRevoked, Message: text,
		})
	}
	for _, id := range news.Readmitted {
		r.Log.Info("node readmitted", keyNode, id.Name)
		r.Events.Event(ctx, kube.EventSpec{
			Kind: kube.KindNode, Name: id.Name, UID: id.UID, Type: kube.EventNormal, Reason: reasonReadmitted,
			Message: fmt.Sprintf("readmitted by list %d; its old keys stay revoked", r.last.list.Number),
		})
	}
	for _, id := range news.Crowded {
		r.Log.Warn("revocation list is full; leaving out a node that is gone", keyNode, id.Name)
	}
}

// reportOrders writes into the status of each order that it is carried out, with
// the number of the first list that did so and the node's known certificates.
func (r *Revoker) reportOrders(ctx context.Context, orders []cluster.Revocation, l keymgr.RevocationList) error {
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
		if err := r.Publisher.ReportRevocation(ctx, o); err != nil && !errors.Is(err, kube.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removeRevokedNodeKeys removes the NodeKeys of readmitted nodes that a revoked key
// has signed. No node accepts them, and one whose sequence number a thief has
// driven up could keep its node from publishing again.
func (r *Revoker) removeRevokedNodeKeys(ctx context.Context, s cluster.Snapshot, l keymgr.RevocationList) error {
	var errs []error
	for _, n := range l.Nodes {
		signed, ok := s.NodeKeys[n.Name]
		if n.Blocked || !ok || s.Claims[n.Name] != n.UID || len(signed.Chain) == 0 {
			continue
		}
		info, err := keymgr.ParseCertificateInfo(signed.Chain[0])
		if err == nil && slices.Contains(n.Keys, keymgr.Hash(info.SPKI)) {
			errs = append(errs, r.Publisher.DeleteNodeKey(ctx, n.Name, n.UID))
		}
	}
	return errors.Join(errs...)
}
