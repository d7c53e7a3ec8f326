// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package ipam gives pods addresses from the prefixes of their node.
//
// Pool is pure: one prefix, and which of its addresses are taken. Store keeps leases across
// restarts, one file per lease. Allocator joins them, and is what the daemon uses.
//
// A released address is not given out again for a while (the reuse delay), because peers,
// connection tracking tables and applications still have it in their caches. After that it
// comes last, because pools hand out addresses round robin. Both survive a restart of the
// daemon.
package ipam
