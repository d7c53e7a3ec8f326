// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/extension"
)

// controlPlaneLabel marks control-plane nodes (KEP-2067).
const controlPlaneLabel = "node-role.kubernetes.io/control-plane"

// Node is what Sealane needs of a Node object.
type Node struct {
	Name, UID    string
	PodCIDRs     []netip.Prefix // every family, as in spec.podCIDRs
	Addresses    []netip.Addr   // the InternalIPs
	Created      time.Time      // in the API server's time; zero if unknown
	Ready        bool           // condition Ready is True
	ControlPlane bool           // carries the control-plane role label
	Zone         string         // label topology.kubernetes.io/zone; empty if it has none
}

// ID returns the node's identity, which distinguishes it from an earlier node of its name.
func (n Node) ID() keymgr.NodeID { return keymgr.NodeID{Name: n.Name, UID: n.UID} }

// Live returns what the API server says about the node, for keymgr to check its statement
// against.
func (n Node) Live() keymgr.LiveNode {
	return keymgr.LiveNode{ID: n.ID(), PodCIDRs: n.PodCIDRs, Addresses: n.Addresses, Created: n.Created, ControlPlane: n.ControlPlane}
}

// FirstAddresses returns as many of the addresses as a certificate or a statement may name.
func (n Node) FirstAddresses() []netip.Addr {
	return n.Addresses[:min(len(n.Addresses), extension.MaxAddresses)]
}

// Pod is what Sealane needs of a Pod object.
type Pod struct {
	Namespace, Name, UID string
	Node                 string // spec.nodeName
	ServiceAccount       string
	HostNetwork          bool
	Finished             bool // phase Succeeded or Failed: its addresses are free
	Deleting             bool // has a deletion timestamp
	Ready                bool // condition Ready is True
	Addresses            []netip.Addr
	// ControllerKind and ControllerUID are of the owner that controls the pod,
	// empty if there is none.
	ControllerKind, ControllerUID string
}

// NodeOf converts a Node object, for the packages below this one. An error is about one
// field: the rest of the Node is good.
func NodeOf(o *corev1.Node) (Node, error) {
	n := Node{Name: o.Name, UID: string(o.UID), Created: o.CreationTimestamp.UTC(), Zone: o.Labels[corev1.LabelTopologyZone]}
	_, n.ControlPlane = o.Labels[controlPlaneLabel]
	for _, text := range o.Spec.PodCIDRs {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return n, fmt.Errorf("%w: node %s: spec.podCIDRs: %w", ErrBadConfig, o.Name, err)
		}
		n.PodCIDRs = append(n.PodCIDRs, prefix.Masked())
	}
	for _, address := range o.Status.Addresses {
		if address.Type != corev1.NodeInternalIP {
			continue
		}
		addr, err := netip.ParseAddr(address.Address)
		if err != nil {
			return n, fmt.Errorf("%w: node %s: status.addresses: %w", ErrBadConfig, o.Name, err)
		}
		n.Addresses = append(n.Addresses, addr.Unmap())
	}
	n.Ready = slices.ContainsFunc(o.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
	return n, nil
}

// PodOf converts a Pod object, for the packages below this one. An error is about one field:
// the rest of the Pod is good.
func PodOf(o *corev1.Pod) (Pod, error) {
	p := Pod{
		Namespace: o.Namespace, Name: o.Name, UID: string(o.UID), Node: o.Spec.NodeName,
		ServiceAccount: o.Spec.ServiceAccountName, HostNetwork: o.Spec.HostNetwork,
		Finished: o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed,
		Deleting: o.DeletionTimestamp != nil,
	}
	if owner := metav1.GetControllerOf(o); owner != nil {
		p.ControllerKind, p.ControllerUID = owner.Kind, string(owner.UID)
	}
	p.Ready = slices.ContainsFunc(o.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
	for _, ip := range o.Status.PodIPs {
		addr, err := netip.ParseAddr(ip.IP)
		if err != nil {
			return p, fmt.Errorf("%w: pod %s/%s: status.podIPs: %w", ErrBadConfig, o.Namespace, o.Name, err)
		}
		p.Addresses = append(p.Addresses, addr.Unmap())
	}
	return p, nil
}
