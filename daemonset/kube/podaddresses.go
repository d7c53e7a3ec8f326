// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sealane/sealane/api/v1alpha1"
)

// podAddressesClient is what gentype's client does and the fake one too.
type podAddressesClient interface {
	List(ctx context.Context, opts metav1.ListOptions) (*v1alpha1.PodAddressesList, error)
	Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
	Create(ctx context.Context, p *v1alpha1.PodAddresses, opts metav1.CreateOptions) (*v1alpha1.PodAddresses, error)
	Delete(ctx context.Context, name string, opts metav1.DeleteOptions) error
}

// AddressedPod is a pod and the addresses that its node has given it.
type AddressedPod struct {
	Namespace, Name string
	UID             string // as the container runtime tells it; empty if it does not
	Addresses       []netip.Addr
}

// Equal tells whether both say the same, addresses in the same order.
func (p AddressedPod) Equal(q AddressedPod) bool {
	return p.Namespace == q.Namespace && p.Name == q.Name && p.UID == q.UID && slices.Equal(p.Addresses, q.Addresses)
}

// Beyond returns the pods of a that b does not list just so. Hundreds may start at
// once on a node, and each is news.
func Beyond(a, b []AddressedPod) []AddressedPod {
	listed := byRef(b)
	return slices.DeleteFunc(slices.Clone(a), func(p AddressedPod) bool {
		return slices.ContainsFunc(listed[p.ref()], p.Equal)
	})
}

func byRef(pods []AddressedPod) map[Ref][]AddressedPod {
	all := make(map[Ref][]AddressedPod, len(pods))
	for _, p := range pods {
		all[p.ref()] = append(all[p.ref()], p)
	}
	return all
}

func (p AddressedPod) ref() Ref { return Ref{KindPod, p.Namespace, p.Name} }

// is tells whether it is the very pod that an object of its name shows.
func (p AddressedPod) is(o *PodObject) bool {
	return p.UID == "" || p.UID == o.UID || p.UID == o.StaticUID
}

// PublishAddresses tells all nodes which addresses the pods of a node have whose
// status does not say it yet. At most v1alpha1.MaxPodAddresses of them are told:
// the others are known when their status is. It takes one request.
func (c *Client) PublishAddresses(ctx context.Context, node string, pods []AddressedPod) error {
	next := &v1alpha1.PodAddresses{ObjectMeta: metav1.ObjectMeta{Name: node}, Pods: []v1alpha1.PodAddress{}}
	for _, p := range pods[:min(len(pods), v1alpha1.MaxPodAddresses)] {
		address := v1alpha1.PodAddress{Namespace: p.Namespace, Name: p.Name, UID: p.UID}
		for _, a := range p.Addresses {
			address.IPs = append(address.IPs, a.String())
		}
		next.Pods = append(next.Pods, address)
	}
	patch, err := json.Marshal(map[string]any{"pods": next.Pods})
	if err != nil {
		return fmt.Errorf("publish podaddresses %s: %w", node, err)
	}
	err = c.mergeAddresses(ctx, node, patch)
	if apierrors.IsNotFound(err) && len(next.Pods) > 0 {
		_, err = c.podAddresses.Create(ctx, next, metav1.CreateOptions{})
	} else if apierrors.IsNotFound(err) {
		err = nil // nobody has been told anything
	}
	return wrap("publish podaddresses "+node, err)
}

// podAddressesSource brings what nodes say of pods before the pods' status does. To
// do without it costs time, so that nothing waits for it: an API server that does
// not have the resource yet is no reason not to start.
func (c *Client) podAddressesSource(o *Objects) source[*v1alpha1.PodAddresses, map[Ref][]AddressedPod] {
	return source[*v1alpha1.PodAddresses, map[Ref][]AddressedPod]{
		example:  &v1alpha1.PodAddresses{},
		optional: true,
		list:     asObject[*v1alpha1.PodAddressesList](c.podAddresses.List),
		watch:    c.podAddresses.Watch,
		convert:  addressedPodsOf,
		news: func(before, after *entry[map[Ref][]AddressedPod]) {
			var was, is map[Ref][]AddressedPod
			if before != nil {
				was = before.value
			}
			if after != nil {
				is = after.value
			}
			for ref := range was {
				if _, still := is[ref]; !still {
					o.mark(ref)
				}
			}
			for ref, pods := range is {
				if !slices.EqualFunc(pods, was[ref], AddressedPod.Equal) {
					o.mark(ref)
				}
			}
		},
	}
}

func addressedPodsOf(o *v1alpha1.PodAddresses) (map[Ref][]AddressedPod, error) {
	var pods []AddressedPod
	var malformed error
	for i, p := range o.Pods {
		pod := AddressedPod{Namespace: p.Namespace, Name: p.Name, UID: p.UID}
		for _, text := range p.IPs {
			a, err := netip.ParseAddr(text)
			if err != nil {
				malformed = fmt.Errorf("%w: podaddresses %s: pods[%d].ips: %w", ErrBadConfig, o.Name, i, err)
				continue
			}
			pod.Addresses = append(pod.Addresses, a.Unmap())
		}
		pods = append(pods, pod)
	}
	return byRef(pods), malformed
}

// announced returns the addresses that a pod's node says it has.
func (o *Objects) announced(pod *PodObject) []netip.Addr {
	pods, _ := o.newcomers.get("", pod.Node)
	for _, p := range pods[Ref{KindPod, pod.Namespace, pod.Name}] {
		if p.is(pod) {
			return p.Addresses
		}
	}
	return nil
}
