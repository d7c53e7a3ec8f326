// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ConditionListed is true in RevocationStatus once the signed list that every
// node follows carries the revocation.
const ConditionListed = "Listed"

// MaxRevoked is the most serial numbers and key hashes that the status of a
// Revocation may have; the API server refuses more.
const MaxRevoked = 64

// Revocation takes one node's identity out of force: every other node cuts its
// lanes, and it gets no certificate. Deleting the object readmits the node, with
// a new key.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=revocations,singular=revocation,shortName=rvk,categories=sealane
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.nodeName`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.spec.reason`
// +kubebuilder:printcolumn:name="Listed",type=string,JSONPath=`.status.conditions[?(@.type=="Listed")].status`
// +kubebuilder:printcolumn:name="List",type=integer,JSONPath=`.status.number`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.spec.message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Revocation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says whose identity is revoked, and why.
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a revocation cannot be changed: delete it, which readmits the node, and make another"
	Spec RevocationSpec `json:"spec"`
	// status is what the controller has made of it.
	// +optional
	Status RevocationStatus `json:"status,omitempty"`
}

// RevocationReason is why a node is revoked: one of the reason codes of RFC 5280,
// 5.3.1, that make sense for a node.
//
// +kubebuilder:validation:Enum=unspecified;keyCompromise;affiliationChanged;superseded;cessationOfOperation;privilegeWithdrawn
type RevocationReason string

// RevocationSpec names one life of a node: a Node object that is made anew under
// the same name has another UID and is not revoked.
type RevocationSpec struct {
	// nodeName is the name of the Node object.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=253
	NodeName string `json:"nodeName"`
	// nodeUID is the UID of the Node object.
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][A-Za-z0-9-]{0,63}$`
	NodeUID string `json:"nodeUID"`
	// reason is why.
	// +kubebuilder:default=unspecified
	// +optional
	Reason RevocationReason `json:"reason,omitempty"`
	// message is for people.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Message string `json:"message,omitempty"`
}

// RevocationStatus is the controller's report.
type RevocationStatus struct {
	// conditions is Listed.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// number is the number of the first list that carries the revocation.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Number int64 `json:"number,omitempty"`
	// revokedAt is when that list was made.
	// +optional
	RevokedAt *metav1.Time `json:"revokedAt,omitempty"`
	// serials are the node's certificates that the controller knows of.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Serials []CertificateSerial `json:"serials,omitempty"`
	// keyHashes are the SHA-256 (lower-case hex) of the public keys
	// (SubjectPublicKeyInfo) in those certificates.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:Pattern=`^[0-9a-f]{64}$`
	KeyHashes []string `json:"keyHashes,omitempty"`
}

// CertificateSerial names a certificate: its issuer gave the number only once.
type CertificateSerial struct {
	// issuer is the issuer's distinguished name (RFC 2253).
	// +kubebuilder:validation:MaxLength=512
	Issuer string `json:"issuer"`
	// serial is the serial number, lower-case hex.
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{1,64}$`
	Serial string `json:"serial"`
}

// RevocationList is a list of Revocation.
//
// +kubebuilder:object:root=true
type RevocationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Revocation `json:"items"`
}
