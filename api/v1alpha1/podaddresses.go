// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// MaxPodAddresses is the most pods that a PodAddresses object may list; the API
// server refuses more.
const MaxPodAddresses = 256

// PodAddresses are the addresses of pods that a node has just connected and whose
// status does not tell them yet: the kubelet writes status.podIPs after it has
// started the containers, and by then they may have sent to pods whose policies
// ask who they are. Its name is the node's name. Only the agent on that node
// writes it. Readers believe it about pods of that node and addresses in its
// ranges, until the pod's own status says more.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=podaddresses,singular=podaddresses,categories=sealane
// +kubebuilder:printcolumn:name="Pods",type=string,JSONPath=`.pods[*].name`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type PodAddresses struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// pods are in no order.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Pods []PodAddress `json:"pods"`
}

// PodAddress is one pod and its addresses.
type PodAddress struct {
	// namespace is the pod's.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`
	// name is the pod's.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// uid is the pod's as the container runtime tells it, which of a static pod is
	// not that of its mirror in the API. Some runtimes tell none.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid,omitempty"`
	// ips are its addresses, one of each family.
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
