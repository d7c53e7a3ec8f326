// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

// ObjectKind is the kind of object that an Event or a Ref is about.
type ObjectKind string

// The kinds of object that Sealane reports on or follows one by one.
const (
	KindNode      ObjectKind = "Node"
	KindPod       ObjectKind = "Pod"
	KindRequest   ObjectKind = "CertificateSigningRequest"
	KindNamespace ObjectKind = "Namespace"
	KindPolicy    ObjectKind = "NetworkPolicy"
	KindService   ObjectKind = "Service"
)

// Ref names an object that changed. A Service is named, too, when one of its
// EndpointSlices changed; the only Node ever named is this one, for its zone.
type Ref struct {
	Kind            ObjectKind
	Namespace, Name string // Namespace is empty for nodes and namespaces
}
