// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package ca issues node certificates: the authority with its root and
// intermediate (Authority), and the judgement whether a certificate request comes
// from the agent of the node it names (Approve).
//
// The package is pure but for its Store: requests and facts are plain values,
// filled by whoever talks to the API server. Certificates carry no subject and one
// URI as their only name, so that none of them is a login to an API server even
// where the root is the Kubernetes cluster's own CA.
package ca
