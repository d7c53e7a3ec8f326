// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package approval

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/extension"
)

// Claim is a live Node object that lists an address.
type Claim struct {
	Node keymgr.LiveNode
	// Ready is set if the Node's kubelet says so: somebody runs it.
	Ready bool
	// Certified is set if a certificate that is valid now names the address as the node's.
	Certified bool
}

// RefusedAddress is an address of a Node that its certificate does not name.
type RefusedAddress struct {
	Addr netip.Addr
	// Reason names the address and the remedy, if there is one.
	Reason string
}

// vouchFor returns those addresses of a Node that its certificate may name. The others do
// not keep the node from a certificate: a slip in one of them must not cost it its lanes.
func vouchFor(n keymgr.LiveNode, p Policy, f Facts) (good []netip.Addr, refused []RefusedAddress) {
	for i, a := range n.Addresses {
		if slices.Contains(n.Addresses[:i], a) {
			continue
		}
		if i >= extension.MaxAddresses {
			reason := fmt.Sprintf("%s and what follows: the Node has %d addresses, a certificate names at most %d", a, len(n.Addresses), extension.MaxAddresses)
			return good, append(refused, RefusedAddress{Addr: a, Reason: reason})
		}
		if err := checkAddress(a, n, p, f); err != nil {
			refused = append(refused, RefusedAddress{Addr: a, Reason: err.Error()})
			continue
		}
		good = append(good, a)
	}
	return good, refused
}

// checkAddress refuses an address that a node cannot have or that is another's: first
// comes first, and among those that ask, the older Node. A Node that is not ready and has
// no certificate takes nothing from a living one: it may be what a machine left that has
// another name now.
func checkAddress(a netip.Addr, n keymgr.LiveNode, p Policy, f Facts) error {
	if err := p.Rules.CheckAddress(a, n.ControlPlane); err != nil {
		return err
	}
	if i := slices.IndexFunc(n.PodCIDRs, func(r netip.Prefix) bool { return r.Contains(a) }); i >= 0 {
		return fmt.Errorf("%s is in the node's pod range %s", a, n.PodCIDRs[i])
	}
	for _, c := range f.Claims[a] {
		if c.Node.ID != n.ID && (c.Certified || c.Ready && c.Node.Older(n) < 0) {
			return fmt.Errorf("%s is an address of node %s, which had it first; delete that Node if no machine runs it", a, c.Node.ID)
		}
	}
	return nil
}

// checkPodRanges refuses a Node whose pod ranges cannot be its own: every other node would
// route them into its lane. Only certified addresses count as those of other nodes, since
// a kubelet could keep others out with invented ones.
func checkPodRanges(n keymgr.LiveNode, p Policy, f Facts) error {
	for _, r := range n.PodCIDRs {
		if err := p.Rules.CheckPodRange(r); err != nil {
			return deny(ReasonPodRanges, "spec.podCIDRs of node %s: %v; delete the Node, so that it gets another range, or correct the setting", n.ID.Name, err)
		}
		for _, a := range slices.SortedFunc(maps.Keys(f.Claims), netip.Addr.Compare) {
			if !r.Contains(a) {
				continue
			}
			if i := slices.IndexFunc(f.Claims[a], func(c Claim) bool { return c.Certified && c.Node.ID != n.ID }); i >= 0 {
				return deny(ReasonPodRanges, "spec.podCIDRs of node %s: %s holds the address %s of node %s; give nodes and pods ranges of their own",
					n.ID.Name, r, a, f.Claims[a][i].Node.ID.Name)
			}
		}
	}
	return nil
}
