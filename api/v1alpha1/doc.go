// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package v1alpha1 holds the types of the API group sealane.io, version v1alpha1.
//
// NodeKey is a node's signed statement of the WireGuard keys it listens with,
// carried opaquely, so that only the node that signed it can say anything in its
// name. Nothing in a NodeKey is trusted because it is stored in the API server;
// readers verify the statement, the certificate chain and the live Node object.
//
// Revocation takes a node's identity out of force. It is an order to the
// controller, which signs the list that nodes follow; nodes do not read it.
//
// +groupName=sealane.io
// +kubebuilder:object:generate=true
package v1alpha1

//go:generate go tool -modfile=../../internal/tools/go.mod controller-gen object:headerFile=header.go.txt crd:headerFile=header.yaml.txt paths=. output:crd:artifacts:config=../../daemonset/deploy/chart/crds
