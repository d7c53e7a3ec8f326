// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package trust keeps this node's own identity (certificate and published key
// statement) fresh, follows roots and revocations, and decides which keys of the
// other nodes to trust. It changes nothing in the kernel.
package trust
