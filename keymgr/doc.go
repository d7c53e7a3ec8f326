// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package keymgr defines how a node states which WireGuard keys it has, and verifies
// the statements of other nodes.
//
// A node certificate says who a node is. It is rare, comes from the cluster's CA (see
// keymgr/ca), and its only name is the URI spiffe://<trust-domain>/node/<name>/<uid>. A
// key statement says which WireGuard keys that node has now. It is frequent, and the
// node signs it itself. The statement travels through the Kubernetes API as opaque bytes
// with a signature and a certificate chain (Signed), so that somebody who can merely
// write API objects cannot give a node another node's identity.
//
// Verifier.Verify is the only way to a valid PeerKey, so no unverified key can reach the
// kernel. This node's own side, its private keys and the statements that it signs, is in
// keymgr/identity.
//
// The package does no network input or output; the clock is injected.
package keymgr
