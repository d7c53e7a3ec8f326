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

	"github.com/sealane/sealane/api/v1alpha1"
)

// AddressedPod is a pod and the addresses that its node has given it.
type AddressedPod struct {
	Namespace, Name string
	UID             string // as the container runtime says; empty if it does not
	Addresses       []netip.Addr
}

// Equal reports whether both say the same, with addresses in the same order.
func (p AddressedPod) Equal(q AddressedPod) bool {
	return p.Namespace == q.Namespace && p.Name == q.Name && p.UID == q.UID && slices.Equal(p.Addresses, q.Addresses)
}

// Beyond returns the pods of a that b does not list exactly so. It is fast with many:
// hundreds may start at once on a node, and each is news.
func Beyond(a, b []AddressedPod) []AddressedPod {
	listed := ByRef(b)
	return slices.DeleteFunc(slices.Clone(a), func(p AddressedPod) bool {
		return slices.ContainsFunc(listed[p.ref()], p.Equal)
	})
}

// ByRef returns the pods by their names: one that was made again may be there twice.
func ByRef(pods []AddressedPod) map[Ref][]AddressedPod {
	all := make(map[Ref][]AddressedPod, len(pods))
	for _, p := range pods {
		all[p.ref()] = append(all[p.ref()], p)
	}
	return all
}

func (p AddressedPod) ref() Ref { return Ref{KindPod, p.Namespace, p.Name} }

// PublishAddresses tells all nodes the addresses of those pods of a node whose status does
// not say them yet. It takes one request, which carries at most v1alpha1.MaxPodAddresses
// pods: the others are known when their status is.
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
	err = c.conn.MergeAddresses(ctx, node, patch)
	if apierrors.IsNotFound(err) && len(next.Pods) > 0 {
		_, err = c.conn.PodAddresses.Create(ctx, next, metav1.CreateOptions{})
	} else if apierrors.IsNotFound(err) {
		err = nil // there is nothing to take back
	}
	return Wrap("publish podaddresses "+node, err)
}
