// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package objects

import (
	"cmp"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
)

// PodAt returns the pod that has an address; of several the newest, as policies
// have it.
func (o *Objects) PodAt(address netip.Addr) (Pod, bool) {
	var all []Pod
	for _, e := range o.pods.By(byAddress, address.String()) {
		if pod, ok := o.Pod(e.Namespace, e.Name); ok && slices.Contains(pod.Addresses, address) {
			all = append(all, pod)
		}
	}
	return newest(all)
}

func newest(all []Pod) (Pod, bool) {
	if len(all) == 0 {
		return Pod{}, false
	}
	return slices.MaxFunc(all, func(a, b Pod) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.UID, b.UID))
	}), true
}

// NodeAt names the node that has an address.
func (o *Objects) NodeAt(address netip.Addr) (name string, ok bool) {
	for _, e := range o.nodes.By(byAddress, address.String()) {
		return e.Name, true
	}
	return "", false
}

// NodeAddresses returns the addresses of a node, none if it is not known.
func (o *Objects) NodeAddresses(name string) []netip.Addr {
	node, _ := o.nodes.Get("", name)
	return node.Addresses
}

// ServiceAt names the service, as namespace/name, that has an address.
func (o *Objects) ServiceAt(address netip.Addr) (name string, ok bool) {
	for _, e := range o.services.By(byAddress, address.String()) {
		return e.Namespace + "/" + e.Name, true
	}
	return "", false
}

// Policies returns the NetworkPolicies of a namespace, by name.
func (o *Objects) Policies(namespace string) []*networkingv1.NetworkPolicy {
	var out []*networkingv1.NetworkPolicy
	for _, e := range o.policies.By(byNamespace, namespace) {
		out = append(out, e.Value)
	}
	slices.SortFunc(out, func(a, b *networkingv1.NetworkPolicy) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
