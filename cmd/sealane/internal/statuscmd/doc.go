// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package statuscmd holds "sealane status" and "sealane certificate": whether the
// cluster is encrypted, and who vouches for a node's key.
package statuscmd
