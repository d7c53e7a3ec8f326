// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package observe

import (
	"net/netip"
	"slices"

	"github.com/sealane/sealane/policy"
)

// Answer is what one node's tables say of a connection.
type Answer struct {
	Node string `json:"node"`
	// Egress and Ingress are nil where another node decides, or nobody.
	Egress  *Found `json:"egress,omitempty"`
	Ingress *Found `json:"ingress,omitempty"`
	// Service names the service (namespace/name) that has the destination's
	// address: what a pod asks it for is decided by the backend's address.
	Service string `json:"service,omitempty"`
}

// Found is what is in the tables for one direction.
type Found struct {
	Allowed      bool `json:"allowed"`
	TrialAllowed bool `json:"trialAllowed"` // as if policies in dry run were in force
	// Unguarded says that the pod has no guard in the tables: nothing gets in or
	// out of it.
	Unguarded bool `json:"unguarded,omitempty"`
	// UnknownPeer says that the other end has no identity: it is no pod, or one
	// that this node has not heard of.
	UnknownPeer bool `json:"unknownPeer,omitempty"`
}

// Here is what a node knows of itself.
type Here struct {
	Node      string
	Addresses []netip.Addr          // of the node
	Pod       func(netip.Addr) bool // whether a pod of this node has the address
}

// Explain looks a connection up as the data path of a node does.
func Explain(t policy.Tables, x policy.Traffic, here Here) Answer {
	x.From, x.To = x.From.Unmap(), x.To.Unmap()
	v := t.Verdict(x, here.Addresses...)
	a := Answer{Node: here.Node}
	if here.Pod(x.From) {
		a.Egress = &Found{Allowed: v.Egress, TrialAllowed: v.TrialEgress}
		a.Egress.check(t, x.From, x.To)
	}
	if here.Pod(x.To) {
		a.Ingress = &Found{Allowed: v.Ingress, TrialAllowed: v.TrialIngress}
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
	_, guarded := t.Guards[subject]
	_, known := t.Identities[peer]
	f.Unguarded, f.UnknownPeer = !guarded, !known
	if !guarded {
		f.Allowed, f.TrialAllowed = false, false
	}
}
