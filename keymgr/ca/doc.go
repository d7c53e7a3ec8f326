// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package ca issues node certificates. Authority holds the root and the intermediate;
// Approve checks that a certificate request comes from the agent of the node it names.
//
// Apart from its Store, the package does no input or output: requests and facts are plain
// values that the caller reads from the API server. Certificates carry no subject and one
// URI as their only name, so none of them is a login to an API server, even where the
// root is the Kubernetes cluster's own CA.
package ca
