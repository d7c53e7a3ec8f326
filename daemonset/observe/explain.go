// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package observe

import (
	"net/netip"
	"slices"

	"github.com/sealane/sealane/policy"
)

// Answer is what one node's tables decide about a connection.
type Answer struct {
	Node string `json:"node"`
	// Egress and Ingress are nil where another node decides, or none does.
	Egress  *Found `json:"egress,omitempty"`
	Ingress *Found `json:"ingress,omitempty"`
	// Service is the service (namespace/name) that has the destination's address;
	// empty: none. Policies judge the address of the backend, not this one.
	Service string `json:"service,omitempty"`
}

// Found is what the tables hold for one direction.
type Found struct {
	Allowed       bool `json:"allowed"`
	DryRunAllowed bool `json:"dryRunAllowed"` // as if policies in dry run were in force
	// NoPolicy is set if the pod has no endpoint policy in the tables: all of its
	// traffic is dropped.
	NoPolicy bool `json:"noPolicy,omitempty"`
	// UnknownPeer is set if the other end has no identity: it is not a pod, or one
	// that this node has not heard of.
	UnknownPeer bool `json:"unknownPeer,omitempty"`
}

// Here is what a node knows of itself.
type Here struct {
	Node      string
	Addresses []netip.Addr          // of the node
	Pod       func(netip.Addr) bool // whether a pod of this node has the address
}

// Explain looks up a connection as the data path of a node does.
func Explain(t policy.Tables, x policy.Traffic, here Here) Answer {
	x.From, x.To = x.From.Unmap(), x.To.Unmap()
	v := t.Verdict(x, here.Addresses...)
	a := Answer{Node: here.Node}
	if here.Pod(x.From) {
		a.Egress = &Found{Allowed: v.Egress, DryRunAllowed: v.DryRunEgress}
		a.Egress.check(t, x.From, x.To)
	}
	if here.Pod(x.To) {
		a.Ingress = &Found{Allowed: v.Ingress, DryRunAllowed: v.DryRunIngress}
		a.Ingress.check(t, x.To, x.From)
	}
	for _, f := range []*Found{a.Egress, a.Ingress} {
		if f != nil && (slices.Contains(here.Addresses, x.From) || slices.Contains(here.Addresses, x.To)) {
			f.UnknownPeer = false
		}
	}
	return a
}

// check completes what was found with what the verdict leaves out.
func (f *Found) check(t policy.Tables, subject, peer netip.Addr) {
	_, guarded := t.Endpoints[subject]
	_, known := t.Identities[peer]
	f.NoPolicy, f.UnknownPeer = !guarded, !known
	if !guarded {
		f.Allowed, f.DryRunAllowed = false, false
	}
}
