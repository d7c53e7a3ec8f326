// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package identity keeps who this node is: its ECDSA key and certificate, its
// WireGuard key generations and the statements that it signs, all on disk.
//
// The package keymgr defines what a statement is and verifies those of other nodes;
// this package produces this node's own.
//
// It does no network input or output; the clock is injected.
package identity
