// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package rotate holds "sealane rotate", which replaces the WireGuard keys of nodes.
package rotate
