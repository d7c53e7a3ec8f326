// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package revocation

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/revocation"
)

// facts gathers what the next list follows from. It also returns, by UID, the nodes
// that are gone and need no entry, because they have no certificate that is valid.
func (r *Revoker) facts(ctx context.Context, old keymgr.RevocationList, s cluster.Snapshot, requests []kube.Request) (revocation.Facts, map[string]bool, error) {
	f := revocation.Facts{Now: r.Clock(), TrustDomain: r.TrustDomain, Lifetime: r.Lifetime, Live: map[string]bool{}}
	for _, n := range s.Nodes {
		f.Live[n.UID] = true
	}
	wanted := map[string]bool{}
	for _, n := range old.Nodes {
		wanted[n.UID] = n.Blocked
	}
	for _, o := range s.Orders {
		if o.Node.Validate() != nil {
			continue // malformed; the watch logs it
		}
		wanted[o.Node.UID] = true
		f.Orders = append(f.Orders, revocation.Order{Node: o.Node, Reason: o.Reason, Keys: o.Status.Keys, Serials: o.Status.Serials})
	}
	gone, err := r.gone(ctx, s, func(uid string) bool { _, listed := old.Node(uid); return listed || f.Live[uid] })
	if err != nil {
		return f, nil, err
	}
	for uid := range gone {
		wanted[uid] = true
	}
	f.Certificates = r.certificates(s, requests, wanted)
	for _, c := range f.Certificates {
		if gone[c.Node.UID] {
			f.Gone = append(f.Gone, c.Node)
			delete(gone, c.Node.UID)
		}
	}
	return f, gone, nil
}

// lookups bounds how many nodes one pass looks up, so that an order to revoke does
// not wait for many nodes that are gone.
const lookups = 10

// gone returns the UIDs of nodes that have left a NodeKey behind. A snapshot may
// show a NodeKey before its node, so gone looks up each node at the API server.
func (r *Revoker) gone(ctx context.Context, s cluster.Snapshot, skip func(uid string) bool) (map[string]bool, error) {
	gone := map[string]bool{}
	left := lookups
	for _, name := range slices.Sorted(maps.Keys(s.Claims)) {
		uid := s.Claims[name]
		switch {
		case skip(uid):
			continue
		case r.State.Settled(uid):
			gone[uid] = true // looked up before
			continue
		case left == 0:
			r.wake() // the next pass looks up the others
			return gone, nil
		}
		left--
		live, err := r.Publisher.Node(ctx, name)
		if err != nil && !errors.Is(err, kube.ErrNotFound) {
			return nil, err
		}
		if err != nil || live.UID != uid {
			gone[uid] = true
		}
	}
	return gone, nil
}

// certificates returns the valid node certificates of the given UIDs that are
// published or were issued recently, those that end first at the beginning.
func (r *Revoker) certificates(s cluster.Snapshot, requests []kube.Request, of map[string]bool) []keymgr.NodeCertificate {
	var chains [][][]byte
	for name, signed := range s.NodeKeys {
		if of[s.Claims[name]] {
			chains = append(chains, signed.Chain)
		}
	}
	for _, q := range requests {
		if uid := q.Extra[approval.ExtraNodeUID]; len(uid) != 1 || !of[uid[0]] {
			continue
		}
		if chain, err := keymgr.DecodeChain(q.Certificate); err == nil {
			chains = append(chains, chain)
		}
	}
	var out []keymgr.NodeCertificate
	for _, chain := range chains {
		if c, err := keymgr.VerifyCertificate(chain, r.Signer.Bundle(), r.Clock()); err == nil && of[c.Node.UID] {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b keymgr.NodeCertificate) int {
		return cmp.Or(a.NotAfter.Compare(b.NotAfter), cmp.Compare(a.Serial, b.Serial))
	})
	return out
}
