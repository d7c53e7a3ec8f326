// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sealane/sealane/keymgr/nodenet"
)

// SetRules says what is known of the cluster's network. It holds for the addresses of
// statements that are verified from now on.
func (v *Verifier) SetRules(r nodenet.Rules) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.rules = r
}

// checkAddresses decides which addresses are the node's: those that certificate, statement
// and live Node name, that a node can have, and that no other node holds. One that is not
// is a warning and no reason to refuse the statement, since a slip in one address must not
// cost a node its lanes.
//
// A certificate of a version that did not name addresses vouches for all of them.
func (v *Verifier) checkAddresses(c *candidate) error {
	for _, a := range c.stmt.Endpoints {
		if !slices.Contains(c.live.Addresses, a) || slices.Contains(c.addresses, a) {
			continue // an endpoint that has left the Node is in the warnings already
		}
		if err := v.addressFault(c, a); err != nil {
			c.warn(WarnAddress, "address %v", err)
			continue
		}
		c.addresses = append(c.addresses, a)
	}
	return nil
}

func (v *Verifier) addressFault(c *candidate, a netip.Addr) error {
	if c.leaf.NamesAddresses && !slices.Contains(c.leaf.Addresses, a) {
		return fmt.Errorf("%s is not in the node's certificate", a)
	}
	if err := v.rules.CheckAddress(a, c.live.ControlPlane); err != nil {
		return err
	}
	if slices.Contains(v.addresses, a) {
		return fmt.Errorf("%s is this node's own", a)
	}
	owner, held := v.claims.addresses[a]
	switch {
	case held && owner == c.live.ID:
	case held && (c.grace || v.stands(owner)):
		return fmt.Errorf("%s is an address of node %s, which had it first; delete that Node if no machine runs it", a, owner)
	case v.restoring || c.live.Created.IsZero():
		// Nothing new from disk: the older of two Nodes may not have been heard yet.
		return fmt.Errorf("%s was not verified before the API server was away", a)
	}
	return nil
}

// stands reports whether what a node has claimed still keeps others from it: neither a
// node that is revoked nor one whose statement has ended takes anything from the living.
func (v *Verifier) stands(id NodeID) bool {
	k, now := v.nodes[id.UID], v.cfg.Clock()
	if k == nil || k.rec.Gone || now.After(k.stmt.NotAfter.Add(ClockSkew)) {
		return false
	}
	cert, _ := k.certificate()
	return v.revoked.find(id, cert, now) == nil
}

// Release frees the addresses that Nodes no longer have. Call it before Verify, so that
// another node can have them in the same pass.
func (v *Verifier) Release(nodes []LiveNode) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, n := range nodes {
		if k := v.nodes[n.ID.UID]; k != nil {
			v.claims.releaseAddresses(n.ID, k.rec.Addresses, n.Addresses)
		}
	}
}

// Addresses returns the addresses that a node holds: the verified ones, or those that were
// verified last, less what another node has verified since.
func (v *Verifier) Addresses(id NodeID) []netip.Addr {
	v.mu.Lock()
	defer v.mu.Unlock()
	k := v.nodes[id.UID]
	if k == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(k.rec.Addresses), func(a netip.Addr) bool { return v.claims.addresses[a] != id })
}
