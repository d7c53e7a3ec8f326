// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ConditionListed is true in RevocationStatus once the revocation is in the signed
// list that every node reads.
const ConditionListed = "Listed"

// MaxRevoked is the most serial numbers and key hashes that the status of a
// Revocation may have; the API server refuses more.
const MaxRevoked = 64

// Revocation revokes the identity of one node: every other node removes its lanes
// to it, and it gets no certificate. Deleting the object readmits the node, which
// then needs a new key.
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

	// spec says which node is revoked, and why.
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a revocation cannot be changed: delete it, which readmits the node, and create another"
	Spec RevocationSpec `json:"spec"`
	// status is the report of the controller.
	// +optional
	Status RevocationStatus `json:"status,omitempty"`
}

// RevocationReason says why a node is revoked. The values are the reason codes of
// RFC 5280, 5.3.1, that make sense for a node.
//
// +kubebuilder:validation:Enum=unspecified;keyCompromise;affiliationChanged;superseded;cessationOfOperation;privilegeWithdrawn
type RevocationReason string

// RevocationSpec identifies one Node object. A Node object that is created again
// under the same name has another UID and is not revoked.
type RevocationSpec struct {
	// nodeName is the name of the Node object.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=253
	NodeName string `json:"nodeName"`
	// nodeUID is the UID of the Node object.
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][A-Za-z0-9-]{0,63}$`
	NodeUID string `json:"nodeUID"`
	// reason says why the node is revoked.
	// +kubebuilder:default=unspecified
	// +optional
	Reason RevocationReason `json:"reason,omitempty"`
	// message is a note for people. Empty means none.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Message string `json:"message,omitempty"`
}

// RevocationStatus is the report of the controller.
type RevocationStatus struct {
	// conditions has the type Listed.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// number is the number of the first list that contains the revocation. 0
	// means that no list contains it yet.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Number int64 `json:"number,omitempty"`
	// revokedAt is the time at which that list was issued.
	// +optional
	RevokedAt *metav1.Time `json:"revokedAt,omitempty"`
	// serials identifies the node's certificates that the controller knows.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Serials []CertificateSerial `json:"serials,omitempty"`
	// keyHashes holds the SHA-256 hashes, in lower-case hex, of the public keys
	// (SubjectPublicKeyInfo) in those certificates.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:Pattern=`^[0-9a-f]{64}$`
	KeyHashes []string `json:"keyHashes,omitempty"`
}

// CertificateSerial identifies a certificate by its issuer and serial number.
type CertificateSerial struct {
	// issuer is the issuer's distinguished name (RFC 2253).
	// +kubebuilder:validation:MaxLength=512
	Issuer string `json:"issuer"`
	// serial is the serial number in lower-case hex.
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
