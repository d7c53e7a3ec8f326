// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// byEach makes an index by every address of a value.
func byEach[T any](addresses func(T) []netip.Addr) cache.IndexFunc {
	return func(object any) ([]string, error) {
		found, ok := object.(*entry[T])
		if !ok {
			return nil, nil
		}
		var keys []string
		for _, a := range addresses(found.value) {
			keys = append(keys, a.String())
		}
		return keys, nil
	}
}

func clusterIPs(s *corev1.Service) []netip.Addr {
	var out []netip.Addr
	for _, text := range s.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(text); err == nil { // a headless one has "None"
			out = append(out, a)
		}
	}
	return out
}

// PodAt returns the pod that has an address; of several the newest, as policies
// have it.
func (o *Objects) PodAt(address netip.Addr) (PodObject, bool) {
	var all []PodObject
	for _, e := range o.pods.by(byAddress, address.String()) {
		if pod, ok := o.Pod(e.Namespace, e.Name); ok && slices.Contains(pod.Addresses, address) {
			all = append(all, pod)
		}
	}
	return newest(all)
}

func newest(all []PodObject) (PodObject, bool) {
	if len(all) == 0 {
		return PodObject{}, false
	}
	return slices.MaxFunc(all, func(a, b PodObject) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.UID, b.UID))
	}), true
}

// NodeAt names the node that has an address.
func (o *Objects) NodeAt(address netip.Addr) (name string, ok bool) {
	for _, e := range o.cfg.Nodes.nodes.by(byAddress, address.String()) {
		return e.Name, true
	}
	return "", false
}

// NodeAddresses returns the addresses of a node, none if it is not known.
func (o *Objects) NodeAddresses(name string) []netip.Addr {
	node, _ := o.cfg.Nodes.nodes.get("", name)
	return node.Addresses
}

// ServiceAt names the service, as namespace/name, that has an address.
func (o *Objects) ServiceAt(address netip.Addr) (name string, ok bool) {
	for _, e := range o.services.by(byAddress, address.String()) {
		return e.Namespace + "/" + e.Name, true
	}
	return "", false
}

// Policies returns the NetworkPolicies of a namespace, by name.
func (o *Objects) Policies(namespace string) []*networkingv1.NetworkPolicy {
	var out []*networkingv1.NetworkPolicy
	for _, e := range o.policies.by(byNamespace, namespace) {
		out = append(out, e.value)
	}
	slices.SortFunc(out, func(a, b *networkingv1.NetworkPolicy) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// pageSize bounds an answer of the API server, in objects.
const pageSize = 500

// PodObjectAt asks the API server for the pod that has an address and can have
// it; of several the newest. ErrNotFound: there is none.
func (c *Client) PodObjectAt(ctx context.Context, address netip.Addr) (PodObject, error) {
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return PodObject{}, err
	}
	possible := func(p PodObject) bool {
		return slices.Contains(p.Addresses, address) && slices.ContainsFunc(nodes, func(n Node) bool {
			return n.Name == p.Node && slices.ContainsFunc(n.PodCIDRs, func(r netip.Prefix) bool { return r.Contains(address) })
		})
	}
	var all []PodObject
	options := metav1.ListOptions{FieldSelector: unfinished, Limit: pageSize}
	for {
		list, err := c.core.CoreV1().Pods(metav1.NamespaceAll).List(ctx, options)
		if err != nil {
			return PodObject{}, wrap("list pods", err)
		}
		for i := range list.Items {
			if pod, err := podObjectOf(&list.Items[i]); err == nil && possible(pod) {
				all = append(all, pod)
			}
		}
		if options.Continue = list.Continue; options.Continue == "" {
			break
		}
	}
	pod, ok := newest(all)
	if !ok {
		return pod, fmt.Errorf("find the pod with address %s: %w", address, ErrNotFound)
	}
	return pod, nil
}

// NamespaceLabels asks the API server for the labels of a namespace.
func (c *Client) NamespaceLabels(ctx context.Context, name string) (map[string]string, error) {
	o, err := c.core.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, wrap("read namespace "+name, err)
	}
	return o.Labels, nil
}

// PoliciesIn asks the API server for the NetworkPolicies of a namespace.
func (c *Client) PoliciesIn(ctx context.Context, namespace string) ([]*networkingv1.NetworkPolicy, error) {
	list, err := c.core.NetworkingV1().NetworkPolicies(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, wrap("list policies of namespace "+namespace, err)
	}
	var out []*networkingv1.NetworkPolicy
	for i := range list.Items {
		out = append(out, &list.Items[i])
	}
	return out, nil
}
