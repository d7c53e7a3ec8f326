// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package ca is a certificate authority that issues node certificates: Authority holds the
// root and the intermediate. Which requests it issues for, keymgr/approval decides.
//
// Apart from its Store, the package does no input or output. Certificates carry no subject
// and one URI as their only name, so none of them is a login to an API server, even where
// the root is the Kubernetes cluster's own CA.
package ca
