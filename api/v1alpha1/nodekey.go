// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Types of the conditions in NodeKeyStatus.
const (
	// ConditionReady is true while the node's lanes, datapath and addresses
	// serve pods.
	ConditionReady = "Ready"
	// ConditionCertified is true while the node holds a certificate that is
	// valid and not overdue for renewal.
	ConditionCertified = "Certified"
	// ConditionEncrypted is true while every packet between this node's pods
	// and other nodes is encrypted. It is false with lane kind vxlan.
	ConditionEncrypted = "Encrypted"
)

// MaxRefused is the most entries status.refused may have; the API server
// refuses more.
const MaxRefused = 32

// NodeKey is one node's signed statement of its WireGuard keys. Its name is
// the node's name. Only the agent on that node writes it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=nodekeys,singular=nodekey,shortName=nk,categories=sealane
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Lane",type=string,JSONPath=`.status.lane`
// +kubebuilder:printcolumn:name="Peers",type=integer,JSONPath=`.status.acceptedPeers`
// +kubebuilder:printcolumn:name="Generation",type=integer,JSONPath=`.status.generation`
// +kubebuilder:printcolumn:name="Expires",type=string,JSONPath=`.status.certificate.notAfter`
// +kubebuilder:printcolumn:name="Serial",type=string,JSONPath=`.status.certificate.serial`,priority=1
// +kubebuilder:printcolumn:name="Sequence",type=integer,JSONPath=`.spec.sequence`,priority=1
// +kubebuilder:printcolumn:name="Node UID",type=string,JSONPath=`.spec.nodeUID`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type NodeKey struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the signed statement.
	Spec NodeKeySpec `json:"spec"`
	// status is what the node's agent reports. It is information for people
	// and carries no authority.
	// +optional
	Status NodeKeyStatus `json:"status,omitempty"`
}

// NodeKeySpec is a statement, its signature and the certificates that vouch
// for the signer.
type NodeKeySpec struct {
	// payload is the statement, exactly the bytes that were signed.
	// +kubebuilder:validation:MinLength=4
	// +kubebuilder:validation:MaxLength=32768
	Payload []byte `json:"payload"`
	// signature is the node's ECDSA signature (ASN.1 DER) over the payload
	// with the protocol's prefix.
	// +kubebuilder:validation:MinLength=8
	// +kubebuilder:validation:MaxLength=256
	Signature []byte `json:"signature"`
	// certificateChain is the node's certificate and the intermediates up to,
	// not including, the root; each DER, the node's own first.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:MinLength=4
	// +kubebuilder:validation:items:MaxLength=16384
	// +listType=atomic
	CertificateChain [][]byte `json:"certificateChain"`
	// continuity are the last handovers from the key of one certificate of the
	// node to that of the next, oldest first; the last one leads to the present
	// certificate.
	// +optional
	// +kubebuilder:validation:MaxItems=4
	// +listType=atomic
	Continuity []ContinuityLink `json:"continuity,omitempty"`
	// nodeUID is the UID of the Node object that the statement is about: a
	// copy for people and for garbage collection. Readers believe the payload.
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9-]{1,64}$`
	NodeUID string `json:"nodeUID"`
	// sequence is the statement's sequence number: a copy for people and for
	// the writer itself. Readers believe the payload.
	// +kubebuilder:validation:Minimum=1
	Sequence int64 `json:"sequence"`
}

// ContinuityLink is the word of an earlier certificate's key for the next one's.
type ContinuityLink struct {
	// key is the earlier public key, a SubjectPublicKeyInfo in DER.
	// +kubebuilder:validation:MinLength=4
	// +kubebuilder:validation:MaxLength=256
	Key []byte `json:"key"`
	// signature is by that key, over both keys and the node.
	// +kubebuilder:validation:MinLength=8
	// +kubebuilder:validation:MaxLength=256
	Signature []byte `json:"signature"`
}

// LaneKind is the kind of tunnel between nodes.
//
// +kubebuilder:validation:Enum=wireguard;vxlan
type LaneKind string

// The kinds of lane.
const (
	// LaneWireGuard is the encrypted lane.
	LaneWireGuard LaneKind = "wireguard"
	// LaneVXLAN is the lane in the clear, for clusters that asked for it.
	LaneVXLAN LaneKind = "vxlan"
)

// NodeKeyStatus is the agent's report on keys.
type NodeKeyStatus struct {
	// conditions are Ready, Certified and Encrypted.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// lane is the kind of lane the node uses.
	// +optional
	Lane LaneKind `json:"lane,omitempty"`
	// generation is the generation of the node's own WireGuard key.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Generation int64 `json:"generation,omitempty"`
	// acceptedPeers is the number of other nodes whose statements the node
	// has verified and uses.
	// +optional
	// +kubebuilder:validation:Minimum=0
	AcceptedPeers int32 `json:"acceptedPeers"`
	// refused are the statements of other nodes that the node does not
	// accept, those refused most often first; at most 32.
	// +optional
	// +listType=map
	// +listMapKey=node
	// +listMapKey=reason
	// +kubebuilder:validation:MaxItems=32
	Refused []RefusedStatement `json:"refused,omitempty"`
	// bundleHash is the SHA-256 (lower-case hex) of the trust bundle that the
	// node verifies with.
	// +optional
	// +kubebuilder:validation:Pattern=`^([0-9a-f]{64})?$`
	BundleHash string `json:"bundleHash,omitempty"`
	// certificate is the node's own certificate.
	// +optional
	Certificate *CertificateStatus `json:"certificate,omitempty"`
}

// RefusedStatement counts the refusals of one node's statements for one reason.
type RefusedStatement struct {
	// node is the name of the NodeKey object.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node"`
	// reason is one word of a fixed list, the same as in metrics and events.
	// +kubebuilder:validation:Pattern=`^[a-z0-9_]{1,64}$`
	Reason string `json:"reason"`
	// count is the number of different statements refused since the agent started.
	// +kubebuilder:validation:Minimum=1
	Count int64 `json:"count"`
	// lastTime is when it was last refused.
	LastTime metav1.Time `json:"lastTime"`
}

// CertificateStatus identifies a certificate.
type CertificateStatus struct {
	// serial is the serial number, lower-case hex.
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{1,64}$`
	Serial string `json:"serial"`
	// issuer is the issuer's distinguished name.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Issuer string `json:"issuer,omitempty"`
	// notBefore is the start of validity.
	NotBefore metav1.Time `json:"notBefore"`
	// notAfter is the end of validity.
	NotAfter metav1.Time `json:"notAfter"`
}

// NodeKeyList is a list of NodeKey.
//
// +kubebuilder:object:root=true
type NodeKeyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []NodeKey `json:"items"`
}
