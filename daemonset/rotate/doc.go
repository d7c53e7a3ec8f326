// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package rotate drives the rotation of a node's WireGuard keys and the agreement on
// preshared keys: it passes to the machine of keymgr/rotation what disk, kernel and API
// server show, and carries out decisions on keys. Decisions on tunnels are left to its
// caller.
package rotate
