// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Indexes of the informers.
const (
	byNode      = "node"
	byService   = "service"
	byAddress   = "address"
	byNamespace = "namespace"
)

// ObjectsConfig says what Client.WatchObjects follows.
type ObjectsConfig struct {
	// Node is the name of this node: its pods are local, its zone is Zone.
	Node string
	// Nodes is the running watch whose nodes say which addresses a pod can have.
	Nodes *Watcher
}

// Ref names an object that changed. A Service is named, too, when one of its
// EndpointSlices changed; the only Node ever named is this one, for its zone.
type Ref struct {
	Kind            ObjectKind
	Namespace, Name string // Namespace is empty for nodes and namespaces
}

// Objects follows what policies and services are made of, in the whole
// cluster. It keeps of each object only what is read of it: see PodObject,
// Namespace, Policy and Service. What its methods return is shared and must not
// be changed. See Client.WatchObjects.
type Objects struct {
	*notifier
	cfg        ObjectsConfig
	pods       *feed[PodObject]
	namespaces *feed[map[string]string]
	policies   *feed[*networkingv1.NetworkPolicy]
	services   *feed[*corev1.Service]
	slices     *feed[*discoveryv1.EndpointSlice]
	newcomers  *feed[map[Ref][]AddressedPod] // by node

	// take guards what follows.
	take    sync.Mutex
	dirty   map[Ref]bool
	since   time.Time          // when the first of dirty became so
	refused map[Ref]netip.Addr // pods that claim an address which is not theirs, and the first such
}

// WatchObjects follows pods, namespaces, policies, services and their
// endpoints until ctx ends. While the API server is away the last state stays.
func (c *Client) WatchObjects(ctx context.Context, cfg ObjectsConfig) (*Objects, error) {
	if cfg.Nodes == nil {
		return nil, fmt.Errorf("%w: watch objects: without a watch of nodes no pod has an address", ErrBadConfig)
	}
	ctx = c.withLog(ctx)
	o := &Objects{notifier: newNotifier(c), cfg: cfg, dirty: map[Ref]bool{}, refused: map[Ref]netip.Addr{}}
	var err error
	if o.pods, err = start(ctx, o.notifier, c.podObjectSource(o)); err != nil {
		return nil, err
	}
	if o.namespaces, err = start(ctx, o.notifier, c.namespaceSource(o)); err != nil {
		return nil, err
	}
	if o.policies, err = start(ctx, o.notifier, c.policySource(o)); err != nil {
		return nil, err
	}
	if o.services, err = start(ctx, o.notifier, c.serviceSource(o)); err != nil {
		return nil, err
	}
	if o.slices, err = start(ctx, o.notifier, c.sliceSource(o)); err != nil {
		return nil, err
	}
	if o.newcomers, err = start(ctx, o.notifier, c.podAddressesSource(o)); err != nil {
		return nil, err
	}
	// Last, because its news look at the pods.
	return o, cfg.Nodes.nodes.follow(ctx, o.notifier, o.nodeNews)
}

// Synced tells whether all that existed at the start has been seen: Take has
// named each object of it.
func (o *Objects) Synced() bool { return o.synced() }

// Take names each object that changed since the last call, once, by kind and
// name, and when the first of these changes arrived. Read an object only after
// Take has named it: a change after that is named by the next Take.
func (o *Objects) Take() ([]Ref, time.Time) {
	o.take.Lock()
	taken, since := o.dirty, o.since
	o.dirty = map[Ref]bool{}
	o.take.Unlock()
	return slices.SortedFunc(maps.Keys(taken), func(a, b Ref) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	}), since
}

func (o *Objects) mark(refs ...Ref) {
	o.take.Lock()
	defer o.take.Unlock()
	if len(o.dirty) == 0 {
		o.since = time.Now()
	}
	for _, r := range refs {
		o.dirty[r] = true
	}
}

// Pod returns a pod. Its addresses are those of its status or, before that has
// any, those that its node has announced; and of these those that it can have: in the
// ranges of the node that it runs on, as the Node object says and the node
// itself cannot. While the Node object is not known, or has no ranges, there are
// none; when it has, Take names the pod again.
func (o *Objects) Pod(namespace, name string) (PodObject, bool) {
	pod, ok := o.pods.get(namespace, name)
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
func (o *Objects) accepted(pod PodObject) []netip.Addr {
	node, _ := o.cfg.Nodes.nodes.get("", pod.Node)
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
	if o.refuse(Ref{KindPod, pod.Namespace, pod.Name}, foreign) {
		o.log.Warn("pod claims an address outside the ranges of its node, ignored",
			keyPod, pod.Namespace+"/"+pod.Name, keyAddress, foreign, keyNode, pod.Node, keyRanges, node.PodCIDRs)
	}
	return out
}

// refuse notes which address a pod claims wrongly, invalid for none, and tells
// whether that is news.
func (o *Objects) refuse(pod Ref, foreign netip.Addr) bool {
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

// Refused counts the pods that claim an address outside the ranges of their
// node: what they claim is ignored.
func (o *Objects) Refused() int {
	o.take.Lock()
	defer o.take.Unlock()
	return len(o.refused)
}

// Namespace returns the labels of a namespace.
func (o *Objects) Namespace(name string) (labels map[string]string, ok bool) {
	return o.namespaces.get("", name)
}

// Policy returns a NetworkPolicy: its name, annotations and spec.
func (o *Objects) Policy(namespace, name string) (*networkingv1.NetworkPolicy, bool) {
	return o.policies.get(namespace, name)
}

// Service returns a Service with its EndpointSlices, by name, as far as package
// overlay/service reads them. Services and slices that kube-proxy leaves alone,
// because their labels say so, are not there.
func (o *Objects) Service(namespace, name string) (*corev1.Service, []*discoveryv1.EndpointSlice, bool) {
	s, ok := o.services.get(namespace, name)
	if !ok {
		return nil, nil, false
	}
	var out []*discoveryv1.EndpointSlice
	for _, e := range o.slices.by(byService, serviceKey(namespace, name)) {
		out = append(out, e.value)
	}
	slices.SortFunc(out, func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	return s, out, true
}

// Zone returns the zone of this node; empty if it has none or is not known.
func (o *Objects) Zone() string {
	node, _ := o.cfg.Nodes.nodes.get("", o.cfg.Node)
	return node.Zone
}

// nodeNews marks what depends on a node: its pods' addresses and our zone.
func (o *Objects) nodeNews(before, after *entry[Node]) {
	var was, is Node
	if before != nil {
		was = before.value
	}
	if after != nil {
		is = after.value
	}
	name := cmp.Or(is.Name, was.Name)
	if name == o.cfg.Node && was.Zone != is.Zone {
		o.mark(Ref{Kind: KindNode, Name: name})
	}
	if before != nil && after != nil && slices.Equal(was.PodCIDRs, is.PodCIDRs) {
		return
	}
	var refs []Ref
	for _, e := range o.pods.by(byNode, name) {
		refs = append(refs, Ref{KindPod, e.Namespace, e.Name})
	}
	o.mark(refs...)
}

// PodObject asks the API server for a pod, for one that the watch has not
// brought yet. Its addresses are what it claims. ErrNotFound: there is none.
func (c *Client) PodObject(ctx context.Context, namespace, name string) (PodObject, error) {
	pod, err := c.core.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return PodObject{}, wrap(fmt.Sprintf("get pod %s/%s", namespace, name), err)
	}
	return podObjectOf(pod)
}

// Policies asks the API server for the policies of a namespace, as they are now:
// the watch of policies may be behind that of pods.
func (c *Client) Policies(ctx context.Context, namespace string) ([]*networkingv1.NetworkPolicy, error) {
	list, err := c.core.NetworkingV1().NetworkPolicies(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, wrap("list policies of namespace "+namespace, err)
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
