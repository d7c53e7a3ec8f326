// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"context"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
)

const (
	// unfinished leaves out the pods that will never run again: in a cluster
	// with many Jobs most of them.
	unfinished = "status.phase!=Succeeded,status.phase!=Failed"
	// serviceProxyName marks services that another proxy than the cluster's serves.
	serviceProxyName = "service.kubernetes.io/service-proxy-name"
)

func (c *Client) podObjectSource(o *Objects) source[*corev1.Pod, PodObject] {
	api := c.core.CoreV1().Pods(metav1.NamespaceAll)
	return source[*corev1.Pod, PodObject]{
		example:  &corev1.Pod{},
		selector: unfinished,
		list:     asObject(api.List),
		watch:    api.Watch,
		convert:  podObjectOf,
		news: func(before, after *entry[PodObject]) {
			if after == nil && before != nil {
				o.refuse(refOf(KindPod, before), netip.Addr{})
			}
			o.mark(refOf(KindPod, before, after))
		},
		indexers: cache.Indexers{
			byNode:    indexed(func(e *entry[PodObject]) string { return e.value.Node }),
			byAddress: byEach(func(p PodObject) []netip.Addr { return p.Addresses }),
		},
	}
}

func (c *Client) namespaceSource(o *Objects) source[*corev1.Namespace, map[string]string] {
	api := c.core.CoreV1().Namespaces()
	return source[*corev1.Namespace, map[string]string]{
		example: &corev1.Namespace{},
		list:    asObject(api.List),
		watch:   api.Watch,
		convert: func(o *corev1.Namespace) (map[string]string, error) { return interned(o.Labels), nil },
		news:    func(before, after *entry[map[string]string]) { o.mark(refOf(KindNamespace, before, after)) },
	}
}

func (c *Client) policySource(o *Objects) source[*networkingv1.NetworkPolicy, *networkingv1.NetworkPolicy] {
	api := c.core.NetworkingV1().NetworkPolicies(metav1.NamespaceAll)
	return source[*networkingv1.NetworkPolicy, *networkingv1.NetworkPolicy]{
		example:  &networkingv1.NetworkPolicy{},
		list:     asObject(api.List),
		watch:    api.Watch,
		convert:  policyOf,
		news:     func(before, after *entry[*networkingv1.NetworkPolicy]) { o.mark(refOf(KindPolicy, before, after)) },
		indexers: cache.Indexers{byNamespace: indexed(func(e *entry[*networkingv1.NetworkPolicy]) string { return e.Namespace })},
	}
}

func (c *Client) serviceSource(o *Objects) source[*corev1.Service, *corev1.Service] {
	api := c.core.CoreV1().Services(metav1.NamespaceAll)
	return source[*corev1.Service, *corev1.Service]{
		example:  &corev1.Service{},
		labels:   "!" + serviceProxyName,
		list:     asObject(api.List),
		watch:    api.Watch,
		convert:  serviceOf,
		news:     func(before, after *entry[*corev1.Service]) { o.mark(refOf(KindService, before, after)) },
		indexers: cache.Indexers{byAddress: byEach(clusterIPs)},
	}
}

func (c *Client) sliceSource(o *Objects) source[*discoveryv1.EndpointSlice, *discoveryv1.EndpointSlice] {
	api := c.core.DiscoveryV1().EndpointSlices(metav1.NamespaceAll)
	return source[*discoveryv1.EndpointSlice, *discoveryv1.EndpointSlice]{
		example: &discoveryv1.EndpointSlice{},
		labels:  "!" + corev1.IsHeadlessService,
		list:    asObject(api.List),
		watch:   api.Watch,
		convert: sliceOf,
		news: func(before, after *entry[*discoveryv1.EndpointSlice]) {
			for _, e := range []*entry[*discoveryv1.EndpointSlice]{before, after} {
				if e != nil { // both: a slice can be given to another service
					o.mark(Ref{KindService, e.Namespace, e.value.Labels[discoveryv1.LabelServiceName]})
				}
			}
		},
		indexers: cache.Indexers{byService: indexed(func(e *entry[*discoveryv1.EndpointSlice]) string {
			return serviceKey(e.Namespace, e.value.Labels[discoveryv1.LabelServiceName])
		})},
	}
}

// asObject makes a list of one kind a list of any.
func asObject[L runtime.Object](list func(context.Context, metav1.ListOptions) (L, error)) func(context.Context, metav1.ListOptions) (runtime.Object, error) {
	return func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return list(ctx, o) }
}

// refOf names the object of whichever state of it there is.
func refOf[T any](kind ObjectKind, states ...*entry[T]) Ref {
	for _, e := range states {
		if e != nil {
			return Ref{kind, e.Namespace, e.Name}
		}
	}
	return Ref{Kind: kind}
}

func serviceKey(namespace, name string) string { return namespace + "/" + name }
