// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Names of the API group and of its resources.
const (
	// Group is the API group.
	Group = "sealane.io"
	// Version is the API version.
	Version = "v1alpha1"
	// NodeKeyResource is the plural resource name of NodeKey in URLs and RBAC.
	NodeKeyResource = "nodekeys"
	// RevocationResource is the plural resource name of Revocation in URLs and RBAC.
	RevocationResource = "revocations"
	// PodAddressesResource is the plural resource name of PodAddresses in URLs and RBAC.
	PodAddressesResource = "podaddresses"
)

// GroupVersion returns sealane.io/v1alpha1.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: Group, Version: Version}
}

// AddToScheme makes s know the types of this package. It never fails; the
// error is there because runtime.SchemeBuilder wants one.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion(), &NodeKey{}, &NodeKeyList{}, &Revocation{}, &RevocationList{}, &PodAddresses{}, &PodAddressesList{})
	metav1.AddToGroupVersion(s, GroupVersion())
	return nil
}
