// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package objects

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/kube/internal/informer"
)

// Config says what Watch follows.
type Config struct {
	// Node is the name of this node, of which Objects.Zone is the zone.
	Node string
	// Nodes is the running watch of the nodes, which say what addresses a pod can have.
	Nodes *cluster.Watcher
}

// Objects follows what policies and services are made of, in the whole
// cluster. It keeps of each object only what is read of it: see Pod,
// Namespace, Policy and Service. What its methods return is shared and must not
// be changed. See Watch.
type Objects struct {
	*informer.Notifier
	log        *slog.Logger
	node       string
	nodes      *informer.Feed[kube.Node]
	pods       *informer.Feed[Pod]
	namespaces *informer.Feed[Namespace]
	policies   *informer.Feed[*networkingv1.NetworkPolicy]
	services   *informer.Feed[*corev1.Service]
	slices     *informer.Feed[*discoveryv1.EndpointSlice]
	newcomers  *informer.Feed[map[kube.Ref][]kube.AddressedPod] // by node

	// take guards what follows.
	take    sync.Mutex
	dirty   map[kube.Ref]bool
	since   time.Time               // when the first of dirty became so
	refused map[kube.Ref]netip.Addr // pods that claim an address which is not theirs, and the first such
}

// Watch follows pods, namespaces, policies, services and their
// endpoints until ctx ends. While the API server is away the last state stays.
func Watch(ctx context.Context, client *kube.Client, cfg Config) (*Objects, error) {
	if cfg.Nodes == nil {
		return nil, fmt.Errorf("%w: watch objects: without a watch of nodes no pod has an address", kube.ErrBadConfig)
	}
	c := client.Connection()
	ctx = c.WithLog(ctx)
	o := &Objects{
		Notifier: informer.NewNotifier(c), log: c.Log, node: cfg.Node, nodes: cfg.Nodes.NodeFeed(),
		dirty: map[kube.Ref]bool{}, refused: map[kube.Ref]netip.Addr{},
	}
	var err error
	if o.pods, err = informer.Start(ctx, o.Notifier, podSource(c, o)); err != nil {
		return nil, err
	}
	if o.namespaces, err = informer.Start(ctx, o.Notifier, namespaceSource(c, o)); err != nil {
		return nil, err
	}
	if o.policies, err = informer.Start(ctx, o.Notifier, policySource(c, o)); err != nil {
		return nil, err
	}
	if o.services, err = informer.Start(ctx, o.Notifier, serviceSource(c, o)); err != nil {
		return nil, err
	}
	if o.slices, err = informer.Start(ctx, o.Notifier, sliceSource(c, o)); err != nil {
		return nil, err
	}
	if o.newcomers, err = informer.Start(ctx, o.Notifier, podAddressesSource(c, o)); err != nil {
		return nil, err
	}
	// This comes last, because nodeNews looks at the pods.
	return o, o.nodes.Follow(ctx, o.Notifier, o.nodeNews)
}

// Synced reports whether all that existed at the start has been seen: then a call of Take
// names each object of it that no call before has named.
func (o *Objects) Synced() bool { return o.Notifier.Synced() }

// Take names each object that changed since the last call, once, by kind and
// name, and when the first of these changes arrived. Read an object only after
// Take has named it: a change after that is named by the next Take.
func (o *Objects) Take() ([]kube.Ref, time.Time) {
	o.take.Lock()
	taken, since := o.dirty, o.since
	o.dirty = map[kube.Ref]bool{}
	o.take.Unlock()
	return slices.SortedFunc(maps.Keys(taken), func(a, b kube.Ref) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	}), since
}

func (o *Objects) mark(refs ...kube.Ref) {
	o.take.Lock()
	defer o.take.Unlock()
	if len(o.dirty) == 0 {
		o.since = time.Now()
	}
	for _, r := range refs {
		o.dirty[r] = true
	}
}

// Pod returns a pod. Its addresses are those of its status or, before that has any, those
// that its node has announced. Addresses outside the ranges of the pod's node are left
// out: the ranges are those of the Node object, which the node itself cannot change. While
// the Node object is not known, or has no ranges, there are no addresses; as soon as it
// has some, Take names the pod again.
func (o *Objects) Pod(namespace, name string) (Pod, bool) {
	pod, ok := o.pods.Get(namespace, name)
	if !ok {
		return pod, false
	}
	if len(pod.Addresses) == 0 && !pod.HostNetwork && !pod.Finished {
		pod.Addresses = o.announced(&pod)
		pod.Announced = len(pod.Addresses) > 0
	}
	pod.Addresses = o.accepted(pod)
	return pod, true
}

// accepted returns the addresses that a pod can have, and reports the others.
func (o *Objects) accepted(pod Pod) []netip.Addr {
	node, _ := o.nodes.Get("", pod.Node)
	if len(node.PodCIDRs) == 0 {
		return nil // not known, or new and without ranges yet
	}
	var out []netip.Addr
	var foreign netip.Addr
	for _, a := range pod.Addresses {
		if slices.ContainsFunc(node.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(a) }) {
			out = append(out, a)
		} else if !foreign.IsValid() {
			foreign = a
		}
	}
	if o.refuse(kube.Ref{Kind: kube.KindPod, Namespace: pod.Namespace, Name: pod.Name}, foreign) {
		o.log.Warn("pod claims an address outside the ranges of its node, ignored",
			keyPod, pod.Namespace+"/"+pod.Name, keyAddress, foreign, keyNode, pod.Node, keyRanges, node.PodCIDRs)
	}
	return out
}

// refuse notes which address a pod claims wrongly, invalid for none, and reports whether
// that is news.
func (o *Objects) refuse(pod kube.Ref, foreign netip.Addr) bool {
	o.take.Lock()
	defer o.take.Unlock()
	if !foreign.IsValid() {
		delete(o.refused, pod)
		return false
	}
	news := o.refused[pod] != foreign
	o.refused[pod] = foreign
	return news
}

// Refused returns the number of pods that claim an address outside the ranges of their
// node. Such addresses are ignored.
func (o *Objects) Refused() int {
	o.take.Lock()
	defer o.take.Unlock()
	return len(o.refused)
}

// Namespace returns a namespace.
func (o *Objects) Namespace(name string) (Namespace, bool) {
	return o.namespaces.Get("", name)
}

// Policy returns a NetworkPolicy: its name, annotations and spec.
func (o *Objects) Policy(namespace, name string) (*networkingv1.NetworkPolicy, bool) {
	return o.policies.Get(namespace, name)
}

// Service returns a Service with its EndpointSlices, by name, as far as package
// overlay/service reads them. Services and slices that kube-proxy leaves alone,
// because their labels say so, are not there.
func (o *Objects) Service(namespace, name string) (*corev1.Service, []*discoveryv1.EndpointSlice, bool) {
	s, ok := o.services.Get(namespace, name)
	if !ok {
		return nil, nil, false
	}
	var out []*discoveryv1.EndpointSlice
	for _, e := range o.slices.By(byService, serviceKey(namespace, name)) {
		out = append(out, e.Value)
	}
	slices.SortFunc(out, func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	return s, out, true
}

// Zone returns the zone of this node; empty if it has none or is not known.
func (o *Objects) Zone() string {
	node, _ := o.nodes.Get("", o.node)
	return node.Zone
}

// nodeNews marks what depends on a node: the addresses of its pods, and this node's zone.
func (o *Objects) nodeNews(before, after *informer.Entry[kube.Node]) {
	var was, is kube.Node
	if before != nil {
		was = before.Value
	}
	if after != nil {
		is = after.Value
	}
	name := cmp.Or(is.Name, was.Name)
	if name == o.node && was.Zone != is.Zone {
		o.mark(kube.Ref{Kind: kube.KindNode, Name: name})
	}
	if before != nil && after != nil && slices.Equal(was.PodCIDRs, is.PodCIDRs) {
		return
	}
	var refs []kube.Ref
	for _, e := range o.pods.By(byNode, name) {
		refs = append(refs, kube.Ref{Kind: kube.KindPod, Namespace: e.Namespace, Name: e.Name})
	}
	o.mark(refs...)
}
