// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package objects

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sealane/sealane/api/v1alpha1"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/internal/conn"
	"github.com/sealane/sealane/daemonset/kube/internal/informer"
)

// podAddressesSource follows what nodes say of pods before the pods' status does. It is an
// optimisation, so startup does not wait for it: an API server that does not have the
// resource yet is no reason not to start.
func podAddressesSource(c conn.Conn, o *Objects) informer.Source[*v1alpha1.PodAddresses, map[kube.Ref][]kube.AddressedPod] {
	return informer.Source[*v1alpha1.PodAddresses, map[kube.Ref][]kube.AddressedPod]{
		Example:  &v1alpha1.PodAddresses{},
		Optional: true,
		List:     informer.AsObject(c.PodAddresses.List),
		Watch:    c.PodAddresses.Watch,
		Convert:  addressedPodsOf,
		News: func(before, after *informer.Entry[map[kube.Ref][]kube.AddressedPod]) {
			var was, is map[kube.Ref][]kube.AddressedPod
			if before != nil {
				was = before.Value
			}
			if after != nil {
				is = after.Value
			}
			for ref := range was {
				if _, still := is[ref]; !still {
					o.mark(ref)
				}
			}
			for ref, pods := range is {
				if !slices.EqualFunc(pods, was[ref], kube.AddressedPod.Equal) {
					o.mark(ref)
				}
			}
		},
	}
}

func addressedPodsOf(o *v1alpha1.PodAddresses) (map[kube.Ref][]kube.AddressedPod, error) {
	var pods []kube.AddressedPod
	var malformed error
	for i, p := range o.Pods {
		pod := kube.AddressedPod{Namespace: p.Namespace, Name: p.Name, UID: p.UID}
		for _, text := range p.IPs {
			a, err := netip.ParseAddr(text)
			if err != nil {
				malformed = fmt.Errorf("%w: podaddresses %s: pods[%d].ips: %w", kube.ErrBadConfig, o.Name, i, err)
				continue
			}
			pod.Addresses = append(pod.Addresses, a.Unmap())
		}
		pods = append(pods, pod)
	}
	return kube.ByRef(pods), malformed
}

// announced returns the addresses that a pod's node says it has.
func (o *Objects) announced(pod *Pod) []netip.Addr {
	pods, _ := o.newcomers.Get("", pod.Node)
	for _, p := range pods[kube.Ref{Kind: kube.KindPod, Namespace: pod.Namespace, Name: pod.Name}] {
		if is(p, pod) {
			return p.Addresses
		}
	}
	return nil
}

// is reports whether p is the very pod that an object of its name shows.
func is(p kube.AddressedPod, o *Pod) bool {
	return p.UID == "" || p.UID == o.UID || p.UID == o.StaticUID
}
