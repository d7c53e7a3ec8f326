// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package approval decides whether a certificate request comes from the agent of the node
// that it names and asks for nothing but that node's certificate.
//
// It does no input or output: requests and facts are plain values that the caller reads
// from the API server. Approve is the only way to a valid Order, and an issuer such as
// keymgr/ca issues for nothing else.
package approval
