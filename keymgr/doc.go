// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package keymgr knows who a node is and which WireGuard keys it has now.
//
// A node certificate (rare, from the cluster's CA, see keymgr/ca) says who: its
// only name is the URI spiffe://<trust-domain>/node/<name>/<uid>. A key statement
// (often, signed by the node itself) says which WireGuard keys that node has now.
// The statement travels through the Kubernetes API as opaque bytes with a
// signature and a certificate chain (Signed), so that nobody who can merely write
// API objects can give a node another node's identity.
//
// Verifier judges what arrives: Verifier.Verify is the only way to a valid
// PeerKey, hence no unverified key can reach the kernel. Identity is this node's
// own side: its ECDSA key, certificate, WireGuard key generations and the
// statements it signs, all on disk.
//
// The package does no network input or output; the clock is injected.
package keymgr
