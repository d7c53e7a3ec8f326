// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package ipam gives pods addresses out of the prefixes of their node.
//
// Pool is pure: one prefix, and which of its addresses are taken. Store keeps
// leases across restarts, one file per lease. Allocator joins them: it is what
// the daemon uses.
//
// An address that was released is not given out again for a while (the reuse
// delay), because peers, connection tracking tables and applications still hold
// it in their caches; and then it comes last, because pools hand out addresses in
// a circle. Both survive a restart of the daemon.
package ipam
