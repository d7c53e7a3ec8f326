// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package objects

import (
	"cmp"
	"fmt"
	"net/netip"
	"unique"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/internal/ipproto"
	"github.com/sealane/sealane/policy"
)

// Pod is what policies see of a Pod of any node. It has no addresses if it uses its node's
// network or has finished; Local is never set.
type Pod struct {
	policy.Pod
	HostNetwork bool
	Finished    bool // phase Succeeded or Failed: its addresses are free
	Deleting    bool // has a deletion timestamp
	Announced   bool // its addresses are those that its node says; its status has none yet
	// StaticUID is the kubelet's own UID of a static pod, of which this object is the
	// mirror; empty for all other pods.
	StaticUID string
}

// Namespace is what policies ask of a namespace.
type Namespace struct {
	Labels   map[string]string
	Deleting bool // has a deletion timestamp: what is in it is being deleted, in any order
}

func namespaceOf(o *corev1.Namespace) (Namespace, error) {
	return Namespace{Labels: interned(o.Labels), Deleting: o.DeletionTimestamp != nil}, nil
}

// interned shares the strings of labels: most pods have their labels in common with
// others, and each decoded object brings copies of its own.
func interned(labels map[string]string) map[string]string {
	if len(labels) == 0 {
		return nil
	}
	out := make(map[string]string, len(labels))
	for k, v := range labels {
		out[unique.Make(k).Value()] = unique.Make(v).Value()
	}
	return out
}

func podOf(o *corev1.Pod) (Pod, error) {
	p := Pod{
		Pod: policy.Pod{
			Namespace: o.Namespace, Name: o.Name, UID: string(o.UID), Labels: interned(o.Labels), Ports: namedPorts(o.Spec),
			Node: unique.Make(o.Spec.NodeName).Value(), Created: o.CreationTimestamp.UTC(),
		},
		HostNetwork: o.Spec.HostNetwork, Deleting: o.DeletionTimestamp != nil,
		Finished:  o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed,
		StaticUID: o.Annotations[corev1.MirrorPodAnnotationKey],
	}
	if p.HostNetwork || p.Finished {
		return p, nil
	}
	for _, ip := range o.Status.PodIPs {
		addr, err := netip.ParseAddr(ip.IP)
		if err != nil {
			return p, fmt.Errorf("%w: pod %s/%s: status.podIPs: %w", kube.ErrBadConfig, o.Namespace, o.Name, err)
		}
		p.Addresses = append(p.Addresses, addr.Unmap())
	}
	return p, nil
}

// namedPorts lists the ports that policies can mean by name. An init container
// that is restarted always is a sidecar and runs with the others (KEP-753).
func namedPorts(spec corev1.PodSpec) []policy.NamedPort {
	var out []policy.NamedPort
	add := func(c corev1.Container) {
		for _, p := range c.Ports {
			protocol, known := ipproto.Number(cmp.Or(p.Protocol, corev1.ProtocolTCP))
			if p.Name != "" && known && p.ContainerPort > 0 && p.ContainerPort <= maxPort {
				out = append(out, policy.NamedPort{Name: unique.Make(p.Name).Value(), Protocol: protocol, Port: uint16(p.ContainerPort)})
			}
		}
	}
	for _, c := range spec.Containers {
		add(c)
	}
	for _, c := range spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	return out
}

const maxPort = 1<<16 - 1

// metaOf keeps the name and the given labels of an object. The resource version
// goes: two states that differ in nothing else are the same.
func metaOf(o metav1.ObjectMeta, labels ...string) metav1.ObjectMeta {
	out := metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name}
	for _, k := range labels {
		if v, ok := o.Labels[k]; ok {
			metav1.SetMetaDataLabel(&out, k, v)
		}
	}
	return out
}

func policyOf(o *networkingv1.NetworkPolicy) (*networkingv1.NetworkPolicy, error) {
	out := &networkingv1.NetworkPolicy{ObjectMeta: metaOf(o.ObjectMeta), Spec: o.Spec}
	out.UID, out.Generation = o.UID, o.Generation
	for k, v := range o.Annotations {
		if k != corev1.LastAppliedConfigAnnotation { // a copy of the spec
			metav1.SetMetaDataAnnotation(&out.ObjectMeta, k, v)
		}
	}
	return out, nil
}

func serviceOf(o *corev1.Service) (*corev1.Service, error) {
	out := &corev1.Service{ObjectMeta: metaOf(o.ObjectMeta, serviceProxyName, corev1.IsHeadlessService), Spec: corev1.ServiceSpec{
		Type: o.Spec.Type, ClusterIP: o.Spec.ClusterIP, ClusterIPs: o.Spec.ClusterIPs, IPFamilies: o.Spec.IPFamilies,
		SessionAffinity: o.Spec.SessionAffinity, SessionAffinityConfig: o.Spec.SessionAffinityConfig,
		InternalTrafficPolicy: o.Spec.InternalTrafficPolicy,
	}}
	for _, p := range o.Spec.Ports {
		out.Spec.Ports = append(out.Spec.Ports, corev1.ServicePort{Name: p.Name, Protocol: p.Protocol, Port: p.Port})
	}
	return out, nil
}

func sliceOf(o *discoveryv1.EndpointSlice) (*discoveryv1.EndpointSlice, error) {
	out := &discoveryv1.EndpointSlice{
		ObjectMeta:  metaOf(o.ObjectMeta, discoveryv1.LabelServiceName, corev1.IsHeadlessService),
		AddressType: o.AddressType, Ports: o.Ports,
	}
	for _, e := range o.Endpoints {
		kept := discoveryv1.Endpoint{Addresses: e.Addresses, Conditions: e.Conditions, Hints: e.Hints}
		if e.NodeName != nil {
			kept.NodeName = new(unique.Make(*e.NodeName).Value())
		}
		out.Endpoints = append(out.Endpoints, kept)
	}
	return out, nil
}
