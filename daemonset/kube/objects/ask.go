// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package objects

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/daemonset/kube"
)

// pageSize bounds an answer of the API server, in objects.
const pageSize = 500

// Reader asks the API server itself, for what no watch has brought yet or for programs that
// watch nothing. It can do what a kube.Client can, too.
type Reader struct{ *kube.Client }

// PodObject returns a pod as the API server has it now, ErrNotFound if it has none. Its
// addresses are those that its status claims.
func (r Reader) PodObject(ctx context.Context, namespace, name string) (Pod, error) {
	pod, err := r.Connection().Core.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return Pod{}, kube.Wrap(fmt.Sprintf("get pod %s/%s", namespace, name), err)
	}
	return podOf(pod)
}

// PodObjectAt returns the pod that has an address and can have it; of several the newest.
// ErrNotFound means that there is none.
func (r Reader) PodObjectAt(ctx context.Context, address netip.Addr) (Pod, error) {
	nodes, err := r.Nodes(ctx)
	if err != nil {
		return Pod{}, err
	}
	possible := func(p Pod) bool {
		return slices.Contains(p.Addresses, address) && slices.ContainsFunc(nodes, func(n kube.Node) bool {
			return n.Name == p.Node && slices.ContainsFunc(n.PodCIDRs, func(r netip.Prefix) bool { return r.Contains(address) })
		})
	}
	var all []Pod
	options := metav1.ListOptions{FieldSelector: unfinished, Limit: pageSize}
	for {
		list, err := r.Connection().Core.CoreV1().Pods(metav1.NamespaceAll).List(ctx, options)
		if err != nil {
			return Pod{}, kube.Wrap("list pods", err)
		}
		for i := range list.Items {
			if pod, err := podOf(&list.Items[i]); err == nil && possible(pod) {
				all = append(all, pod)
			}
		}
		if options.Continue = list.Continue; options.Continue == "" {
			break
		}
	}
	pod, ok := newest(all)
	if !ok {
		return pod, fmt.Errorf("find the pod with address %s: %w", address, kube.ErrNotFound)
	}
	return pod, nil
}

// NamespaceLabels returns the labels of a namespace as they are now.
func (r Reader) NamespaceLabels(ctx context.Context, name string) (map[string]string, error) {
	o, err := r.Connection().Core.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, kube.Wrap("read namespace "+name, err)
	}
	return o.Labels, nil
}

// Policies returns the NetworkPolicies of a namespace as they are now, trimmed like those
// of Objects.Policies. The watch of policies may be behind that of pods.
func (r Reader) Policies(ctx context.Context, namespace string) ([]*networkingv1.NetworkPolicy, error) {
	list, err := r.Connection().Core.NetworkingV1().NetworkPolicies(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, kube.Wrap("list policies of namespace "+namespace, err)
	}
	var all []*networkingv1.NetworkPolicy
	for i := range list.Items {
		p, err := policyOf(&list.Items[i])
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}
