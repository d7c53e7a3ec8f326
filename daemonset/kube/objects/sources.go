// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package objects

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/internal/conn"
	"github.com/sealane/sealane/daemonset/kube/internal/informer"
)

// Indexes of the informers.
const (
	byNode      = "node"
	byService   = "service"
	byAddress   = informer.ByAddress
	byNamespace = "namespace"
)

const (
	// unfinished leaves out the pods that will never run again: in a cluster
	// with many Jobs most of them.
	unfinished = "status.phase!=Succeeded,status.phase!=Failed"
	// serviceProxyName marks services that another proxy than the cluster's serves.
	serviceProxyName = "service.kubernetes.io/service-proxy-name"
)

func podSource(c conn.Conn, o *Objects) informer.Source[*corev1.Pod, Pod] {
	api := c.Core.CoreV1().Pods(metav1.NamespaceAll)
	return informer.Source[*corev1.Pod, Pod]{
		Example:  &corev1.Pod{},
		Selector: unfinished,
		List:     informer.AsObject(api.List),
		Watch:    api.Watch,
		Convert:  podOf,
		News: func(before, after *informer.Entry[Pod]) {
			if after == nil && before != nil {
				o.refuse(refOf(kube.KindPod, before), netip.Addr{})
			}
			o.mark(refOf(kube.KindPod, before, after))
		},
		Indexers: cache.Indexers{
			byNode:    informer.Indexed(func(e *informer.Entry[Pod]) string { return e.Value.Node }),
			byAddress: informer.ByEach(func(p Pod) []netip.Addr { return p.Addresses }),
		},
	}
}

func namespaceSource(c conn.Conn, o *Objects) informer.Source[*corev1.Namespace, Namespace] {
	api := c.Core.CoreV1().Namespaces()
	return informer.Source[*corev1.Namespace, Namespace]{
		Example: &corev1.Namespace{},
		List:    informer.AsObject(api.List),
		Watch:   api.Watch,
		Convert: namespaceOf,
		News:    func(before, after *informer.Entry[Namespace]) { o.mark(refOf(kube.KindNamespace, before, after)) },
	}
}

func policySource(c conn.Conn, o *Objects) informer.Source[*networkingv1.NetworkPolicy, *networkingv1.NetworkPolicy] {
	api := c.Core.NetworkingV1().NetworkPolicies(metav1.NamespaceAll)
	return informer.Source[*networkingv1.NetworkPolicy, *networkingv1.NetworkPolicy]{
		Example: &networkingv1.NetworkPolicy{},
		List:    informer.AsObject(api.List),
		Watch:   api.Watch,
		Convert: policyOf,
		News: func(before, after *informer.Entry[*networkingv1.NetworkPolicy]) {
			o.mark(refOf(kube.KindPolicy, before, after))
		},
		Indexers: cache.Indexers{byNamespace: informer.Indexed(func(e *informer.Entry[*networkingv1.NetworkPolicy]) string { return e.Namespace })},
	}
}

func serviceSource(c conn.Conn, o *Objects) informer.Source[*corev1.Service, *corev1.Service] {
	api := c.Core.CoreV1().Services(metav1.NamespaceAll)
	return informer.Source[*corev1.Service, *corev1.Service]{
		Example:  &corev1.Service{},
		Labels:   "!" + serviceProxyName,
		List:     informer.AsObject(api.List),
		Watch:    api.Watch,
		Convert:  serviceOf,
		News:     func(before, after *informer.Entry[*corev1.Service]) { o.mark(refOf(kube.KindService, before, after)) },
		Indexers: cache.Indexers{byAddress: informer.ByEach(clusterIPs)},
	}
}

func sliceSource(c conn.Conn, o *Objects) informer.Source[*discoveryv1.EndpointSlice, *discoveryv1.EndpointSlice] {
	api := c.Core.DiscoveryV1().EndpointSlices(metav1.NamespaceAll)
	return informer.Source[*discoveryv1.EndpointSlice, *discoveryv1.EndpointSlice]{
		Example: &discoveryv1.EndpointSlice{},
		Labels:  "!" + corev1.IsHeadlessService,
		List:    informer.AsObject(api.List),
		Watch:   api.Watch,
		Convert: sliceOf,
		News: func(before, after *informer.Entry[*discoveryv1.EndpointSlice]) {
			for _, e := range []*informer.Entry[*discoveryv1.EndpointSlice]{before, after} {
				if e != nil { // both: a slice can be given to another service
					o.mark(kube.Ref{Kind: kube.KindService, Namespace: e.Namespace, Name: e.Value.Labels[discoveryv1.LabelServiceName]})
				}
			}
		},
		Indexers: cache.Indexers{byService: informer.Indexed(func(e *informer.Entry[*discoveryv1.EndpointSlice]) string {
			return serviceKey(e.Namespace, e.Value.Labels[discoveryv1.LabelServiceName])
		})},
	}
}

// refOf names the object of whichever state of it there is.
func refOf[T any](kind kube.ObjectKind, states ...*informer.Entry[T]) kube.Ref {
	for _, e := range states {
		if e != nil {
			return kube.Ref{Kind: kind, Namespace: e.Namespace, Name: e.Name}
		}
	}
	return kube.Ref{Kind: kind}
}

func serviceKey(namespace, name string) string { return namespace + "/" + name }

func clusterIPs(s *corev1.Service) []netip.Addr {
	var out []netip.Addr
	for _, text := range s.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(text); err == nil { // a headless one has "None"
			out = append(out, a)
		}
	}
	return out
}
