// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package nodenet says which addresses a node can have and which ranges its pods. A kubelet
// writes the addresses into its own Node object as it likes, and every other node routes by
// them; so signer and readers ask here.
package nodenet

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sealane/sealane/internal/canonical"
)

// Rules is what is known of the cluster's network. Each empty field means unknown, and then
// its rule does not apply.
type Rules struct {
	NodeCIDRs    []netip.Prefix // ranges of the nodes' addresses
	PodCIDRs     []netip.Prefix // ranges of all pods
	ServiceCIDRs []netip.Prefix // ranges of the Services' addresses
	APIServer    []netip.Addr   // endpoints of the Service default/kubernetes
}

// CheckAddress refuses what cannot be the address of a node. An API server's address can
// be only that of a control-plane node: a kubelet cannot give its Node that label, because
// the admission plugin NodeRestriction keeps it from doing so.
func (r Rules) CheckAddress(a netip.Addr, controlPlane bool) error {
	if !canonical.Address(a) || !a.IsGlobalUnicast() {
		return fmt.Errorf("%s is not a global unicast address", a)
	}
	if len(r.NodeCIDRs) > 0 && !containing(r.NodeCIDRs, a).IsValid() {
		return fmt.Errorf("%s is outside of the nodes' ranges %s (cluster.nodeCIDRs)", a, r.NodeCIDRs)
	}
	if p := containing(r.PodCIDRs, a); p.IsValid() {
		return fmt.Errorf("%s is in the pod range %s", a, p)
	}
	if p := containing(r.ServiceCIDRs, a); p.IsValid() {
		return fmt.Errorf("%s is in the range of Services %s", a, p)
	}
	if !controlPlane && slices.Contains(r.APIServer, a) {
		return fmt.Errorf("%s is an address of the API server, and the Node has no label node-role.kubernetes.io/control-plane", a)
	}
	return nil
}

// CheckPodRange refuses what cannot be a range of a node's pods.
func (r Rules) CheckPodRange(p netip.Prefix) error {
	if len(r.PodCIDRs) > 0 && !slices.ContainsFunc(r.PodCIDRs, func(c netip.Prefix) bool { return Within(p, c) }) {
		return fmt.Errorf("%s is outside of the cluster's pod ranges %s (cluster.podCIDRs)", p, r.PodCIDRs)
	}
	if i := slices.IndexFunc(r.ServiceCIDRs, p.Overlaps); i >= 0 {
		return fmt.Errorf("%s overlaps the range of Services %s", p, r.ServiceCIDRs[i])
	}
	if i := slices.IndexFunc(r.APIServer, p.Contains); i >= 0 {
		return fmt.Errorf("%s holds the API server's address %s", p, r.APIServer[i])
	}
	return nil
}

// Within reports whether all of p lies in c.
func Within(p, c netip.Prefix) bool { return c.Overlaps(p) && c.Bits() <= p.Bits() }

// containing returns the first range that holds a, the zero Prefix if none does.
func containing(ranges []netip.Prefix, a netip.Addr) netip.Prefix {
	if i := slices.IndexFunc(ranges, func(p netip.Prefix) bool { return p.Contains(a) }); i >= 0 {
		return ranges[i]
	}
	return netip.Prefix{}
}
