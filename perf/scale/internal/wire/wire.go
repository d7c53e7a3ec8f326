// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package wire encodes NodeKeys as the API server sends them to those who watch.
package wire

import (
	"encoding/json"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sealane/sealane/api/v1alpha1"
	"github.com/sealane/sealane/keymgr"
)

// What the API server adds to an object that two updates have made: who wrote what.
const (
	specFields   = `{"f:spec":{".":{},"f:certificateChain":{},"f:nodeUID":{},"f:payload":{},"f:sequence":{},"f:signature":{}}}`
	statusFields = `{"f:status":{".":{},"f:acceptedPeers":{},"f:bundleHash":{},"f:certificate":{".":{},"f:issuer":{},"f:notAfter":{},"f:notBefore":{},"f:serial":{}},"f:conditions":{".":{},"k:{\"type\":\"Certified\"}":{".":{},"f:lastTransitionTime":{},"f:message":{},"f:reason":{},"f:status":{},"f:type":{}},"k:{\"type\":\"Encrypted\"}":{".":{},"f:lastTransitionTime":{},"f:message":{},"f:reason":{},"f:status":{},"f:type":{}},"k:{\"type\":\"Ready\"}":{".":{},"f:lastTransitionTime":{},"f:message":{},"f:reason":{},"f:status":{},"f:type":{}}},"f:generation":{},"f:lane":{}}}`
)

// news is a line of a watch: what every node receives when a NodeKey changes.
type news struct {
	Type   string           `json:"type"`
	Object v1alpha1.NodeKey `json:"object"`
}

// Encode puts a statement into the NodeKey that the API server sends.
func Encode(id keymgr.NodeID, s keymgr.Signed, now time.Time) ([]byte, error) {
	stmt, err := keymgr.ParseStatement(s.Payload)
	if err != nil {
		return nil, err
	}
	info, err := keymgr.ParseCertificateInfo(s.Chain[0])
	if err != nil {
		return nil, err
	}
	at := metav1.NewTime(now)
	managed := func(fields, part string) metav1.ManagedFieldsEntry {
		var list metav1.FieldsV1
		list.SetRawBytes([]byte(fields))
		return metav1.ManagedFieldsEntry{
			Manager: "sealaned", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "sealane.io/v1alpha1", Time: &at,
			FieldsType: "FieldsV1", FieldsV1: &list, Subresource: part,
		}
	}
	key := v1alpha1.NodeKey{
		TypeMeta: metav1.TypeMeta{Kind: "NodeKey", APIVersion: "sealane.io/v1alpha1"},
		ObjectMeta: metav1.ObjectMeta{
			Name: id.Name, UID: types.UID(id.UID), ResourceVersion: fmt.Sprint(10_000_000 + stmt.Seq%1000), Generation: 100, CreationTimestamp: at,
			ManagedFields: []metav1.ManagedFieldsEntry{managed(specFields, ""), managed(statusFields, "status")},
		},
		Spec: v1alpha1.NodeKeySpec{
			Payload: s.Payload, Signature: s.Signature, CertificateChain: s.Chain, NodeUID: id.UID, Sequence: int64(stmt.Seq),
		},
		Status: v1alpha1.NodeKeyStatus{
			Lane: v1alpha1.LaneWireGuard, Generation: int64(stmt.Keys[0].Generation), AcceptedPeers: 4999, BundleHash: keymgr.HashPayload(nil).String(),
			Certificate: &v1alpha1.CertificateStatus{
				Serial: info.Serial, Issuer: info.Issuer, NotBefore: metav1.NewTime(info.NotBefore), NotAfter: metav1.NewTime(info.NotAfter),
			},
		},
	}
	for _, l := range s.Continuity {
		key.Spec.Continuity = append(key.Spec.Continuity, v1alpha1.ContinuityLink{Key: l.Key, Signature: l.Signature})
	}
	for kind, reason := range map[string]string{v1alpha1.ConditionReady: "Serving", v1alpha1.ConditionCertified: "Certified", v1alpha1.ConditionEncrypted: "WireGuard"} {
		key.Status.Conditions = append(key.Status.Conditions, metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: reason, LastTransitionTime: at})
	}
	return json.Marshal(news{"MODIFIED", key})
}

// Decode does what a watching agent does with it.
func Decode(line []byte) (keymgr.Signed, error) {
	var n news
	if err := json.Unmarshal(line, &n); err != nil {
		return keymgr.Signed{}, err
	}
	spec := n.Object.Spec
	s := keymgr.Signed{Payload: spec.Payload, Signature: spec.Signature, Chain: spec.CertificateChain}
	for _, l := range spec.Continuity {
		s.Continuity = append(s.Continuity, keymgr.Link{Key: l.Key, Signature: l.Signature})
	}
	return s, nil
}
