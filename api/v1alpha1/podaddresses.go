// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// MaxPodAddresses is the largest number of pods in a PodAddresses object that the
// API server accepts.
const MaxPodAddresses = 256

// PodAddresses lists the addresses of pods that a node has just connected and
// whose status does not show them yet. The kubelet writes status.podIPs only after
// it has started the containers; by then the pods may have sent packets to other
// pods, whose policies need to know the sender. The object has the node's name.
// Only the agent on that node writes it. Readers use it only for pods of that node
// and for addresses in the node's ranges, until the pod's own status has addresses.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=podaddresses,singular=podaddresses,categories=sealane
// +kubebuilder:printcolumn:name="Pods",type=string,JSONPath=`.pods[*].name`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type PodAddresses struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// pods lists the pods in no particular order.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Pods []PodAddress `json:"pods"`
}

// PodAddress is one pod and its addresses.
type PodAddress struct {
	// namespace is the namespace of the pod.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`
	// name is the name of the pod.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// uid is the UID of the pod as the container runtime reports it. The UID of a
	// static pod differs from that of its mirror pod in the API. It is empty if the
	// runtime reports none.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid,omitempty"`
	// ips holds the addresses of the pod, one of each address family.
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:MaxLength=45
	IPs []string `json:"ips"`
}

// PodAddressesList is a list of PodAddresses.
//
// +kubebuilder:object:root=true
type PodAddressesList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []PodAddresses `json:"items"`
}
