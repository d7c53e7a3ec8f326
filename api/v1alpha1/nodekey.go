// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Types of the conditions in NodeKeyStatus.
const (
	// ConditionReady is true while the node's lanes, data path and addresses
	// serve pods.
	ConditionReady = "Ready"
	// ConditionCertified is true while the node holds a certificate that is
	// valid and not overdue for renewal.
	ConditionCertified = "Certified"
	// ConditionEncrypted is true while every packet between this node's pods
	// and other nodes is encrypted. It is false if lane.kind is vxlan.
	ConditionEncrypted = "Encrypted"
)

// MaxRefused is the largest number of entries in status.refused that the API
// server accepts.
const MaxRefused = 32

// NodeKey is one node's signed statement of its WireGuard keys. It has the
// node's name. Only the agent on that node writes it.
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
	// status is the report of the node's agent. It is information for people
	// and carries no authority.
	// +optional
	Status NodeKeyStatus `json:"status,omitempty"`
}

// NodeKeySpec is a statement, its signature and the certificates of the signer.
type NodeKeySpec struct {
	// payload is the statement: exactly the bytes that the node signed.
	// +kubebuilder:validation:MinLength=4
	// +kubebuilder:validation:MaxLength=32768
	Payload []byte `json:"payload"`
	// signature is the node's ECDSA signature (ASN.1 DER) over the payload
	// with the prefix of the protocol.
	// +kubebuilder:validation:MinLength=8
	// +kubebuilder:validation:MaxLength=256
	Signature []byte `json:"signature"`
	// certificateChain holds the node's certificate first and then the
	// intermediates, without the root. Each certificate is in DER.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:MinLength=4
	// +kubebuilder:validation:items:MaxLength=16384
	// +listType=atomic
	CertificateChain [][]byte `json:"certificateChain"`
	// continuity holds the last handovers from the key of one certificate of
	// the node to the key of the next, oldest first. The last handover leads to
	// the current certificate. Empty means that the node's first certificate is
	// the current one.
	// +optional
	// +kubebuilder:validation:MaxItems=4
	// +listType=atomic
	Continuity []ContinuityLink `json:"continuity,omitempty"`
	// nodeUID is the UID of the Node object that the statement is about. It is
	// a copy for people and for garbage collection; readers use the payload.
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9-]{1,64}$`
	NodeUID string `json:"nodeUID"`
	// sequence is the sequence number of the statement. It is a copy for people
	// and for the writer itself; readers use the payload.
	// +kubebuilder:validation:Minimum=1
	Sequence int64 `json:"sequence"`
}

// ContinuityLink is the signature of one certificate's key over the key of the
// next certificate.
type ContinuityLink struct {
	// key is the earlier public key: a SubjectPublicKeyInfo in DER.
	// +kubebuilder:validation:MinLength=4
	// +kubebuilder:validation:MaxLength=256
	Key []byte `json:"key"`
	// signature is the signature of that key over both keys and the node.
	// +kubebuilder:validation:MinLength=8
	// +kubebuilder:validation:MaxLength=256
	Signature []byte `json:"signature"`
}

// LaneKind is the encapsulation of packets between nodes.
//
// +kubebuilder:validation:Enum=wireguard;vxlan
type LaneKind string

// The encapsulations.
const (
	// LaneWireGuard encrypts.
	LaneWireGuard LaneKind = "wireguard"
	// LaneVXLAN does not encrypt. A cluster must ask for it explicitly.
	LaneVXLAN LaneKind = "vxlan"
)

// NodeKeyStatus is the agent's report on keys.
type NodeKeyStatus struct {
	// conditions has the types Ready, Certified and Encrypted.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// lane is the encapsulation that the node uses: wireguard or vxlan.
	// +optional
	Lane LaneKind `json:"lane,omitempty"`
	// generation is the generation of the node's own WireGuard key. 0 means
	// that the node has no key yet, or uses vxlan.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Generation int64 `json:"generation,omitempty"`
	// acceptedPeers is the number of other nodes whose statements the node has
	// verified and uses.
	// +optional
	// +kubebuilder:validation:Minimum=0
	AcceptedPeers int32 `json:"acceptedPeers"`
	// refused lists the statements of other nodes that the node does not
	// accept, at most 32, beginning with those that it refused most often.
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
	// certificate is the node's own certificate. It is missing until the node
	// has one.
	// +optional
	Certificate *CertificateStatus `json:"certificate,omitempty"`
}

// RefusedStatement counts the refusals of one node's statements for one reason.
type RefusedStatement struct {
	// node is the name of the NodeKey object.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node"`
	// reason is one word of a fixed list. Metrics and Events use the same words.
	// +kubebuilder:validation:Pattern=`^[a-z0-9_]{1,64}$`
	Reason string `json:"reason"`
	// count is the number of different statements refused since the agent
	// started.
	// +kubebuilder:validation:Minimum=1
	Count int64 `json:"count"`
	// lastTime is the time of the last refusal.
	LastTime metav1.Time `json:"lastTime"`
}

// CertificateStatus identifies a certificate.
type CertificateStatus struct {
	// serial is the serial number in lower-case hex.
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
